"""A training loop of one's own, without the Trainer: real handwritten digits, a small network, 15 epochs.

python examples/digits_loop.py
"""

import smelt
from smelt import data, datasets, losses, metrics, nn, optim, schedule

EPOCHS, BATCH_SIZE = 15, 64

# ---------------------------------------------------------------------------------------------------------------- data

train, test = data.split(datasets.digits(), 0.2, stratify=True, seed=0)
preprocess = data.ImagePreprocess.fit(train.x, maximum=16)
loader = data.Loader(train, BATCH_SIZE, shuffle=True, seed=0)

# --------------------------------------------------------------------------------------------------------------- model

smelt.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding="same", bias=False),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Dropout(0.2),
    nn.Linear(4 * 4 * 32, 10),
)
for message in model.check((BATCH_SIZE, 8, 8, 1)):
    raise SystemExit(message)

# ------------------------------------------------------------------------------------------------------------ training

optimizer = optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.05, clip_norm=5.0)
rate = schedule.one_cycle(EPOCHS * len(loader))

for epoch in range(EPOCHS):
    model.train()
    mean = metrics.Loss()
    for x, y in loader:
        optimizer.lr = 5e-3 * rate(optimizer.steps)
        loss = losses.cross_entropy(model(preprocess(x)), y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean.add(loss.item(), rows=len(y))
    print(f"epoch {epoch + 1:2}  loss {mean.compute():.4f}")

# ---------------------------------------------------------------------------------------------------------- evaluation

model.eval()
accuracy, f1 = metrics.Accuracy(), metrics.F1()
with smelt.no_grad():
    for x, y in data.Loader(test, 256):
        logits = model(preprocess(x))
        accuracy.update(logits, y)
        f1.update(logits, y)
print(f"test accuracy {100 * accuracy.compute():.2f} %, F1 {f1.compute():.3f}")
