// Winograd's convolution, forward and input gradient: transformed filters (places, depth, columns) in panels as a product's B,
// tiles of the picture (places, tiles, depth) as its A, and the products back to pixels while they are in the cache.
//
// With many tiles the filters are transformed once and each thread takes a batch of tiles through all steps. With few, the tiles are
// transformed once and each thread takes a panel of filters through all steps, so that these never leave its cache.
#include "cpu/kernels/activated.inl.h"
#include "cpu/kernels/conv_winograd.inl.h"
#include "cpu/kernels/families.h"

namespace smelt {
namespace {

using F = Tile<VecF>;
constexpr int64_t kBatch = (48 + F::kMr / 2) / F::kMr * F::kMr;  // tiles that are multiplied at once: whole tiles of the product
constexpr int64_t kBlock = 16;                                    // of the depth, whose filters are packed at once

// One convolution, whichever way round: result (n, p, q, columns) from a picture (n, h, w, depth).
template <class S, class O>
struct Layer {
  const S* picture;
  int64_t h, w, depth, pad[2];
  const S* filters;  // (K, 3, 3, C)
  bool turned;       // of the input gradient: filters are turned and have the depth first
  O* y;
  int64_t n, p, q, columns;
  const S* bias;
  Activation activation;
  bool accumulate;

  explicit Layer(const Conv2dArgs& a)
      : picture(static_cast<const S*>(a.x)), h(a.shape.h), w(a.shape.w), depth(a.shape.c), pad{a.shape.pad[0], a.shape.pad[1]},
        filters(static_cast<const S*>(a.w)), turned(false), y(static_cast<O*>(a.y)), n(a.shape.n), p(a.shape.p), q(a.shape.q),
        columns(a.shape.k), bias(static_cast<const S*>(a.bias)), activation(a.activation), accumulate(false) {}
  explicit Layer(const Conv2dBackwardInputArgs& a)
      : picture(static_cast<const S*>(a.dy)), h(a.shape.p), w(a.shape.q), depth(a.shape.k),
        pad{2 - a.shape.pad[0], 2 - a.shape.pad[1]}, filters(static_cast<const S*>(a.w)), turned(true),
        y(static_cast<O*>(a.dx)), n(a.shape.n), p(a.shape.h), q(a.shape.w), columns(a.shape.c), bias(nullptr),
        activation(Activation::none), accumulate(a.accumulate) {}
};

// How the work is cut and where its parts lie in the workspace, in elements.
template <int M>
struct Cut {
  static constexpr int kPlaces = Winograd<M>::kPlaces;
  Tiles tiles;
  int64_t panels, batch, batches;
  bool by_panels;
  int64_t u_pitch, v_pitch, m_pitch;  // from place to place
  int64_t u_count, v_count;           // panels of filters, sets of tiles

  template <class S, class O>
  Cut(const Layer<S, O>& l, int threads) : tiles(M, l.n, l.p, l.q), panels(ceil_div(l.columns, F::kNr)) {
    const int64_t rounds = max_of(int64_t{1}, ceil_div(tiles.count, kBatch * threads));
    batch = round_up(max_of(int64_t{1}, ceil_div(tiles.count, rounds * threads)), int64_t{F::kMr});
    batches = ceil_div(tiles.count, batch);
    by_panels = tiles.count < l.columns && panels >= threads;
    u_pitch = place_pitch(l.depth * F::kNr);
    v_pitch = place_pitch((by_panels ? tiles.count : batch) * l.depth);
    m_pitch = place_pitch(batch * F::kNr);
    u_count = by_panels ? threads : panels;
    v_count = by_panels ? 1 : threads;
  }
  int64_t u_size() const { return kPlaces * u_pitch; }
  int64_t v_size() const { return kPlaces * v_pitch; }
  int64_t m_size() const { return kPlaces * m_pitch; }
  static constexpr int64_t kPacked = 9 * kBlock * F::kNr;
};

template <int M, class S, class O>
size_t workspace_of(const Layer<S, O>& l, int threads) {
  const Cut<M> cut(l, threads);
  const int64_t all = cut.u_count * cut.u_size() + cut.v_count * cut.v_size() +
                      threads * (cut.m_size() + Cut<M>::kPacked) + round_up(l.depth, 16);
  return static_cast<size_t>(all) * sizeof(float);
}

template <int M, class S, class O>
class WinogradLayer {
 public:
  using W = Winograd<M>;
  static constexpr int A = W::kA;

  WinogradLayer(const Layer<S, O>& layer, Context& context) : l(layer), cut(layer, context.threads) {
    u = static_cast<float*>(context.workspace);
    v = u + cut.u_count * cut.u_size();
    m = v + cut.v_count * cut.v_size();
    packed = m + context.threads * cut.m_size();
    zeros = reinterpret_cast<S*>(packed + context.threads * Cut<M>::kPacked);
    for (int64_t c = 0; c < l.depth; ++c) zeros[c] = S{};
  }

  void run(Context& context) {
    if (cut.by_panels) {
      parallel_for(context, cut.tiles.count, 4, [&](int64_t begin, int64_t end) { transform_tiles(begin, end, v + begin * l.depth); });
      parallel_chunks(context, cut.panels, [&](int64_t panel, int thread) {
        float* const own = u + thread * cut.u_size();
        transform_filters(panel, own, thread);
        for (int64_t t = 0; t < cut.tiles.count; t += cut.batch) multiply(panel, t, own, v + t * l.depth, m + thread * cut.m_size());
      });
      return;
    }
    parallel_chunks(context, cut.panels, [&](int64_t panel, int thread) { transform_filters(panel, u + panel * cut.u_size(), thread); });
    parallel_chunks(context, cut.batches, [&](int64_t i, int thread) {
      const int64_t t = i * cut.batch;
      float* const own = v + thread * cut.v_size();
      transform_tiles(t, min_of(t + cut.batch, cut.tiles.count), own);
      for (int64_t panel = 0; panel < cut.panels; ++panel)
        multiply(panel, t, u + panel * cut.u_size(), own, m + thread * cut.m_size());
    });
  }

 private:
  int width_of(int64_t panel) const { return static_cast<int>(min_of(l.columns - panel * F::kNr, int64_t{F::kNr})); }

  void transform_filters(int64_t panel, float* to, int thread) const {
    const int64_t first = panel * F::kNr;
    const int width = width_of(panel);
    float* const all = packed + thread * Cut<M>::kPacked;
    for (int64_t d = 0; d < l.depth; d += kBlock) {
      const int64_t depth = min_of(kBlock, l.depth - d);
      for (int tap = 0; tap < 9; ++tap) {
        float* const of_tap = all + tap * kBlock * F::kNr;
        if (l.turned)  // (depth, 3, 3, columns)
          pack_copy(l.filters + (d * 9 + 8 - tap) * l.columns + first, 9 * l.columns, depth, width, F::kNr, of_tap);
        else
          pack_transpose(l.filters + (first * 9 + tap) * l.depth + d, 9 * l.depth, depth, width, F::kNr, of_tap);
      }
      for (int64_t e = 0; e < depth * F::kNr; e += VecF::W)
        transform<3, A>([](const auto& g, auto& r) { W::filter(g, r); },
                        [&](int i, int j) { return VecF::load(all + (i * 3 + j) * kBlock * F::kNr + e); },
                        [&](int i, int j, VecF x) { x.store(to + (i * A + j) * cut.u_pitch + d * F::kNr + e); });
    }
  }

  void transform_tiles(int64_t begin, int64_t end, float* to) const {
    for (int64_t t = begin; t < end; ++t, to += l.depth) {
      const TileAt at(cut.tiles, t);
      const Square<A, S> from(l.picture + at.n * l.h * l.w * l.depth, l.h, l.w, l.depth, at.i * M - l.pad[0], at.j * M - l.pad[1], zeros);
      each_vector<VecF>(l.depth, [&](int64_t c, int lanes) __attribute__((always_inline)) {
        transform<A, A>([](const auto& d, auto& r) { W::input(d, r); },
                        [&](int i, int j) { return load<VecF>(from.at[i][j] + c, lanes); },
                        [&](int i, int j, VecF x) { store(to + (i * A + j) * cut.v_pitch + c, x, lanes); });
      });
    }
  }

  // Tiles from t on, as many as a batch has, times one panel of filters, to pixels.
  void multiply(int64_t panel, int64_t t, const float* of_panel, const float* of_tiles, float* products) const {
    const int64_t count = min_of(cut.batch, cut.tiles.count - t);
    const int width = width_of(panel);
    alignas(64) char memory[sizeof(Runs<float>) + F::kMr * sizeof(float*)];
    auto* runs = reinterpret_cast<Runs<float>*>(memory);
    runs->length = l.depth;
    for (int place = 0; place < W::kPlaces; ++place)
      for (int64_t i = 0; i < count; i += F::kMr) {
        const int rows = static_cast<int>(min_of(count - i, int64_t{F::kMr}));
        float* c_rows[F::kMr];
        for (int r = 0; r < F::kMr; ++r) {
          const int64_t row = i + min_of(r, rows - 1);
          runs->pointers[r] = of_tiles + place * cut.v_pitch + row * l.depth;
          c_rows[r] = products + place * cut.m_pitch + row * F::kNr;
        }
        const float* b = of_panel + place * cut.u_pitch;
        for (int64_t d = 0; d < l.depth; d += kChain) {
          runs->skip = d;
          F::run<LayoutA::runs>(min_of(kChain, l.depth - d), reinterpret_cast<const float*>(runs), b + d * F::kNr, c_rows, rows,
                                width, Epilogue<float>{1, nullptr, Activation::none, d > 0});
        }
      }
    for (int64_t i = 0; i < count; ++i) to_pixels(TileAt(cut.tiles, t + i), panel * F::kNr, width, products + i * F::kNr);
  }

  void to_pixels(const TileAt& at, int64_t first, int width, const float* products) const {
    const int64_t top = at.i * M, left = at.j * M, rows = min_of(int64_t{M}, l.p - top), columns = min_of(int64_t{M}, l.q - left);
    O* const corner = l.y + ((at.n * l.p + top) * l.q + left) * l.columns + first;
    each_vector<VecF>(width, [&](int64_t k, int lanes) __attribute__((always_inline)) {
      const VecF bias = l.bias ? load<VecF>(l.bias + first + k, lanes) : VecF::zero();
      transform<A, M>([](const auto& x, auto& r) { W::output(x, r); },
                      [&](int i, int j) { return load<VecF>(products + (i * A + j) * cut.m_pitch + k, lanes); },
                      [&](int i, int j, VecF x) {
                        if (i >= rows || j >= columns) return;
                        O* to = corner + (i * l.q + j) * l.columns + k;
                        if (l.accumulate) x = load<VecF>(to, lanes) + x;
                        if (l.bias) x = x + bias;
                        store(to, l.activation == Activation::none ? x : activated(l.activation, rounded<O>(x)), lanes);
                      });
    });
  }

  const Layer<S, O> l;
  const Cut<M> cut;
  float *u, *v, *m, *packed;
  S* zeros;
};

// Below so many tiles the transforms cost more than the products save.
constexpr int64_t kLeastTiles = 24;
bool pays(const ConvShape& s, int64_t p, int64_t q, int m) {
  return winograd_fits(s) && s.c >= kLeastChannels && s.k >= kLeastChannels && s.n * ceil_div(p, m) * ceil_div(q, m) >= kLeastTiles;
}
bool prefers_large(int64_t p, int64_t q) { return winograd_cost(4, p, q) < winograd_cost(2, p, q); }

template <int M>
bool forward_takes(const Conv2dArgs& a) {
  return takes_formats(a.dtype, a.dtype) && pays(a.shape, a.shape.p, a.shape.q, M) &&
         (M == 2 || prefers_large(a.shape.p, a.shape.q));
}
template <int M>
size_t forward_workspace(const Conv2dArgs& a, int threads) {
  return with_formats(a.dtype, a.dtype, [&]<class S, class O>(S, O) { return workspace_of<M>(Layer<S, O>(a), threads); });
}
template <int M>
Status conv2d(const Conv2dArgs& a, Context& context) noexcept {
  with_formats(a.dtype, a.dtype, [&]<class S, class O>(S, O) {
    if constexpr (sizeof(S) == sizeof(O)) WinogradLayer<M, S, O>(Layer<S, O>(a), context).run(context);
  });
  return Status::ok;
}

template <int M>
bool input_takes(const Conv2dBackwardInputArgs& a) {
  return takes_formats(a.dtype, a.dx_dtype) && pays(a.shape, a.shape.h, a.shape.w, M) &&
         (M == 2 || prefers_large(a.shape.h, a.shape.w));
}
template <int M>
size_t input_workspace(const Conv2dBackwardInputArgs& a, int threads) {
  return with_formats(a.dtype, a.dx_dtype, [&]<class S, class O>(S, O) { return workspace_of<M>(Layer<S, O>(a), threads); });
}
template <int M>
Status conv2d_backward_input(const Conv2dBackwardInputArgs& a, Context& context) noexcept {
  with_formats(a.dtype, a.dx_dtype, [&]<class S, class O>(S, O) {
    WinogradLayer<M, S, O>(Layer<S, O>(a), context).run(context);
  });
  return Status::ok;
}

template <int M>
void add(KernelTable& table, const char* forward, const char* input) {
  add_kernel<Conv2dArgs, conv2d<M>, forward_takes<M>, forward_workspace<M>>(table, forward);
  add_kernel<Conv2dBackwardInputArgs, conv2d_backward_input<M>, input_takes<M>, input_workspace<M>>(table, input);
}

}  // namespace

namespace cpu::SMELT_ISA {
void register_conv_winograd(KernelTable& table) {
  if constexpr (kIsa != Isa::avx512bf16)  // whose products of pairs are no slower
    add<2>(table, SMELT_KERNEL_NAME("conv2d_winograd2"), SMELT_KERNEL_NAME("conv2d_backward_input_winograd2"));
  add<4>(table, SMELT_KERNEL_NAME("conv2d_winograd4"), SMELT_KERNEL_NAME("conv2d_backward_input_winograd4"));
}
}  // namespace cpu::SMELT_ISA

}  // namespace smelt
