"""MNIST with the Trainer: a network, a run folder, early stopping, and a saved model that is loaded again.

    python examples/mnist_trainer.py --data FOLDER

FOLDER holds mnist/ with the four idx files; by default it is the variable SMELT_DATA. With --download they are fetched.
"""

import argparse

import smelt
from smelt import data, datasets, nn, optim

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", help="folder that holds mnist/")
parser.add_argument("--download", action="store_true", help="fetch the files when they are not there")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--rows", type=int, default=60000, help="training rows to use")
parser.add_argument("--out", help="run folder, new or empty")
args = parser.parse_args()

train, test = datasets.mnist(args.data, download=args.download)
train, validation = data.split(train.rows(slice(args.rows)), 0.1, seed=0)

smelt.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding="same", bias=False),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3, padding="same", bias=False),
    nn.BatchNorm2d(64),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(7 * 7 * 64, 128, activation="relu"),
    nn.Dropout(0.3),
    nn.Linear(128, 10),
)
trainer = smelt.Trainer(
    model,
    loss="cross_entropy",
    optimizer=optim.AdamW(model.named_parameters(), lr=2e-3, weight_decay=0.05),
    metrics=["accuracy", "f1"],
    schedule="one_cycle",
    preprocess=data.ImagePreprocess.fit(train.x),
    labels=train.labels,
)
history = trainer.fit(train, validation, epochs=args.epochs, batch_size=128, patience=3, out=args.out)
for row in history:
    print(f"epoch {row['epoch']}  loss {row['train_loss']:.4f}  validation accuracy {row['val_accuracy']:.4f}")

report = trainer.evaluate(test)
print(f"test accuracy {100 * report['accuracy']:.2f} %, F1 {report['f1']:.3f}")

smelt.save(model, "mnist.safetensors", labels=train.labels, preprocess=trainer.preprocess, metrics=report)
again = smelt.load("mnist.safetensors")
with smelt.no_grad():
    first = again(again.preprocess(test.x[:5])).argmax(-1)
print("first five digits of the test set:", [again.labels[i] for i in first.tolist()], "true:", test.y[:5].tolist())
