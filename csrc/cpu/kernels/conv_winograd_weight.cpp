// Winograd's weight gradient: the kernel is the result, tiles of the picture and of dy are transformed, and their products, whose
// depth are the tiles, become 3x3 taps: for each place xi of a tile, (K, tiles) times (tiles, C).
//
// The sums of a block of rows and columns are kept over all places. A small dw is cut by places, which keeps a place's tiles in the
// cache; a large one by blocks, whose sums then never leave it.
#include "cpu/kernels/conv_winograd.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

using F = Tile<VecF>;
using W = Winograd<4>;
constexpr int M = W::kM, A = W::kA, kPlaces = W::kPlaces;
constexpr int64_t kRows = 4 * F::kMr;      // of a block
constexpr int64_t kHeld = 2 << 20;         // elements of transformed tiles that are held at once
constexpr int64_t kSmall = 128 * 128;      // K C up to which dw is cut by places

struct Cut {
  Tiles tiles;
  int64_t panels, row_blocks, rounds, most;  // tiles of a round
  bool by_places;
  int64_t x_pitch, dy_pitch, sum_pitch;  // from place to place
  int64_t sums;                          // blocks whose sums are kept

  Cut(const ConvShape& s, int threads)
      : tiles(M, s.n, s.p, s.q), panels(ceil_div(s.c, F::kNr)), row_blocks(ceil_div(s.k, kRows)) {
    const int64_t each = kPlaces * (panels * F::kNr + s.k);
    rounds = max_of(int64_t{1}, ceil_div(tiles.count * each, kHeld));
    most = max_of(int64_t{1}, ceil_div(tiles.count, rounds));
    rounds = ceil_div(tiles.count, most);
    by_places = s.k * s.c <= kSmall;
    x_pitch = place_pitch(most * panels * F::kNr);
    dy_pitch = place_pitch(most * s.k);
    sum_pitch = place_pitch(kRows * F::kNr);
    sums = by_places || rounds > 1 ? blocks() : threads;
  }
  int64_t blocks() const { return panels * row_blocks; }
  int64_t elements(const ConvShape& s) const {
    return kPlaces * (x_pitch + dy_pitch + sums * sum_pitch) + round_up(max_of(s.c, s.k), 16) + 16;
  }
};

template <class S, class O>
class WeightGradient {
 public:
  WeightGradient(const Conv2dBackwardWeightArgs& args, Context& context) : a(args), s(args.shape), cut(args.shape, context.threads) {
    x = static_cast<float*>(context.workspace);
    dy = x + kPlaces * cut.x_pitch;
    sums = dy + kPlaces * cut.dy_pitch;
    zeros = reinterpret_cast<S*>(sums + kPlaces * cut.sums * cut.sum_pitch);
    for (int64_t c = 0; c < max_of(s.c, s.k); ++c) zeros[c] = S{};
  }

  void run(Context& context) {
    for (int64_t round = 0; round < cut.rounds; ++round) {
      first = round * cut.most;
      count = min_of(cut.most, cut.tiles.count - first);
      parallel_for(context, count, 4, [&](int64_t begin, int64_t end) { transform_tiles(begin, end); });
      const bool last = round == cut.rounds - 1;
      if (cut.by_places) {
        parallel_chunks(context, kPlaces, [&](int64_t place, int) {
          for (int64_t b = 0; b < cut.blocks(); ++b) multiply(b, static_cast<int>(place), sums_of(b), round > 0);
        });
        if (last) parallel_chunks(context, cut.blocks(), [&](int64_t b, int) { to_taps(b, sums_of(b)); });
      } else {
        parallel_chunks(context, cut.blocks(), [&](int64_t b, int thread) {
          float* const own = sums_of(cut.rounds > 1 ? b : thread);
          for (int place = 0; place < kPlaces; ++place) multiply(b, place, own, round > 0);
          if (last) to_taps(b, own);
        });
      }
    }
  }

 private:
  float* sums_of(int64_t i) const { return sums + i * kPlaces * cut.sum_pitch; }
  int rows_of(int64_t block) const { return static_cast<int>(min_of(s.k - block / cut.panels * kRows, kRows)); }
  int width_of(int64_t block) const { return static_cast<int>(min_of(s.c - block % cut.panels * F::kNr, int64_t{F::kNr})); }

  // Of this round: x as (places, panels, tiles, kNr), dy as (places, tiles, K).
  void transform_tiles(int64_t begin, int64_t end) const {
    for (int64_t t = begin; t < end; ++t) {
      const TileAt at(cut.tiles, first + t);
      const Square<A, S> from(static_cast<const S*>(a.x) + at.n * s.h * s.w * s.c, s.h, s.w, s.c, at.i * M - s.pad[0],
                           at.j * M - s.pad[1], zeros);
      each_vector<VecF>(s.c, [&](int64_t c, int lanes) __attribute__((always_inline)) {
        float* const to = x + (c / F::kNr * count + t) * F::kNr + c % F::kNr;
        transform<A, A>([](const auto& d, auto& r) { W::input(d, r); },
                        [&](int i, int j) { return load<VecF>(from.at[i][j] + c, lanes); },
                        [&](int i, int j, VecF v) { store(to + (i * A + j) * cut.x_pitch, v, lanes); });
      });
      const Square<M, S> slope(static_cast<const S*>(a.dy) + at.n * s.p * s.q * s.k, s.p, s.q, s.k, at.i * M, at.j * M, zeros);
      each_vector<VecF>(s.k, [&](int64_t k, int lanes) __attribute__((always_inline)) {
        float* const to = dy + t * s.k + k;
        transform<M, A>([](const auto& g, auto& r) { W::gradient(g, r); },
                        [&](int i, int j) { return load<VecF>(slope.at[i][j] + k, lanes); },
                        [&](int i, int j, VecF v) { store(to + (i * A + j) * cut.dy_pitch, v, lanes); });
      });
    }
  }

  void multiply(int64_t block, int place, float* own, bool add) const {
    const int64_t panel = block % cut.panels, k = block / cut.panels * kRows;
    const float* b = x + place * cut.x_pitch + panel * count * F::kNr;
    for (int64_t t = 0; t < count; t += kChain)
      for (int i = 0; i < rows_of(block); i += F::kMr) {
        const int rows = min_of(rows_of(block) - i, F::kMr);
        const Columns<float> columns{dy + place * cut.dy_pitch + t * s.k + k + i, s.k};
        float* c_rows[F::kMr];
        for (int r = 0; r < F::kMr; ++r) c_rows[r] = own + place * cut.sum_pitch + (i + min_of(r, rows - 1)) * F::kNr;
        F::run<LayoutA::columns>(min_of(kChain, count - t), reinterpret_cast<const float*>(&columns), b + t * F::kNr, c_rows, rows,
                                 width_of(block), Epilogue<float>{1, nullptr, Activation::none, add || t > 0});
      }
  }

  void to_taps(int64_t block, const float* own) const {
    const int64_t first_column = block % cut.panels * F::kNr, first_row = block / cut.panels * kRows;
    for (int r = 0; r < rows_of(block); ++r) {
      O* const dw = static_cast<O*>(a.dw) + (first_row + r) * 9 * s.c + first_column;
      each_vector<VecF>(width_of(block), [&](int64_t c, int lanes) __attribute__((always_inline)) {
        transform<A, 3>([](const auto& m, auto& y) { W::taps(m, y); },
                        [&](int i, int j) { return load<VecF>(own + (i * A + j) * cut.sum_pitch + r * F::kNr + c, lanes); },
                        [&](int i, int j, VecF v) {
                          O* to = dw + (i * 3 + j) * s.c + c;
                          store(to, a.accumulate ? load<VecF>(to, lanes) + v : v, lanes);
                        });
      });
    }
  }

  const Conv2dBackwardWeightArgs& a;
  const ConvShape& s;
  const Cut cut;
  int64_t first = 0, count = 0;  // tiles of this round
  float *x, *dy, *sums;
  S* zeros;
};

// Below so many tiles, or where tiles reach far beyond the picture, the transforms cost more than the products save.
// F(2x2) would save little, and rounds a little more than the plain kernel here.
constexpr int64_t kLeastTiles = 24;
bool takes(const Conv2dBackwardWeightArgs& a) {
  const ConvShape& s = a.shape;
  return takes_formats(a.dtype, a.dw_dtype) && winograd_fits(s) && s.c >= kLeastChannels && s.k >= kLeastChannels &&
         s.n * ceil_div(s.p, M) * ceil_div(s.q, M) >= kLeastTiles && 3 * winograd_cost(M, s.p, s.q) <= 2 * 9 * s.p * s.q;
}
size_t workspace(const Conv2dBackwardWeightArgs& a, int threads) {
  return static_cast<size_t>(Cut(a.shape, threads).elements(a.shape)) * sizeof(float);
}
Status conv2d_backward_weight(const Conv2dBackwardWeightArgs& a, Context& context) noexcept {
  with_formats(a.dtype, a.dw_dtype, [&]<class S, class O>(S, O) { WeightGradient<S, O>(a, context).run(context); });
  return Status::ok;
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_conv_winograd_weight(KernelTable& table) {
  add_kernel<Conv2dBackwardWeightArgs, conv2d_backward_weight, takes, workspace>(
      table, SMELT_KERNEL_NAME("conv2d_backward_weight_winograd4"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
