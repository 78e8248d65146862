// The kernel as a primitive of mlx, which its lazy graphs, compiled code and transformations know. It
// reads and writes mlx's buffers where they lie.
//
// Compiled against the headers of the installed mlx, and with the nanobind that mlx was built with.
// The kernel's functions come as addresses, so that nothing is linked but mlx.
#include <mlx/allocator.h>
#include <mlx/array.h>
#include <mlx/backend/cpu/encoder.h>
#include <mlx/ops.h>
#include <mlx/primitives.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>
#include <string>

#include "../fft_conv.h"

namespace mx = mlx::core;
namespace nb = nanobind;

namespace {

using Arrays = std::vector<mx::array>;
using Maybe = std::optional<mx::array>;

struct Kernel {
  decltype(&ember_fft_conv_forward) forward = nullptr;
  decltype(&ember_fft_conv_backward) backward = nullptr;
  decltype(&ember_fft_conv_scratch) scratch = nullptr;
  decltype(&ember_fft_conv_error) error = nullptr;
} kernel;

void check(int status) {
  if (status) throw std::invalid_argument(std::string("fft_conv: ") + kernel.error(status) + ".");
}

// What a call does beside its arrays. Its inputs are u, k, in a backward pass g, and last d where
// there is one; its outputs y, or those of the gradients du, dk and dd that are wanted.
struct Numbers {
  int64_t start, length, skip;
  int threads;
  bool backward = false, skips = false;
  std::array<bool, 3> wanted = {};  // du, dk, dd

  bool operator==(const Numbers& o) const {
    return start == o.start && length == o.length && skip == o.skip && threads == o.threads &&
           backward == o.backward && skips == o.skips && wanted == o.wanted;
  }
  size_t inputs() const { return 2u + backward + skips; }
};

int dtype_of(const mx::array& x) {
  switch (x.dtype()) {
    case mx::float32: return EMBER_FLOAT32;
    case mx::float64: return EMBER_FLOAT64;
    case mx::float16: return EMBER_FLOAT16;
    case mx::bfloat16: return EMBER_BFLOAT16;
    default: throw std::invalid_argument("fft_conv: expected floating point tensors.");
  }
}

ember_strides strides_of(const mx::array& x) { return {x.strides(0), x.strides(1), x.strides(2)}; }

ember_strides dense(int64_t time, int64_t width) { return {time * width, width, 1}; }

// Without strides: the arrays may have yet to be computed.
ember_fft_conv describe(const mx::array& u, const mx::array& k, const Numbers& n) {
  ember_fft_conv conv = {};
  conv.version = EMBER_FFT_CONV_VERSION;
  conv.dtype = dtype_of(u);
  conv.filter_dtype = dtype_of(k);
  conv.batch = u.shape(0);
  conv.size = u.shape(1);
  conv.width = u.shape(2);
  conv.taps = k.shape(0);
  conv.filters = k.shape(1);
  conv.start = n.start;
  conv.length = n.length;
  conv.skip = n.skip;
  conv.y = dense(conv.length, conv.width);
  conv.du = dense(conv.size, conv.width);
  conv.dk_tap = conv.filters;
  conv.dk_filter = 1;
  const int64_t bytes = kernel.scratch(&conv, n.backward, n.threads);
  check(bytes < 0 ? int(-bytes) : EMBER_OK);
  return conv;
}

Arrays call(Arrays inputs, const Numbers& numbers, const mx::Stream& stream);

class Convolution : public mx::Primitive {
 public:
  Convolution(mx::Stream stream, const Numbers& numbers) : Primitive(stream), n_(numbers) {}

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override {
    const mx::array &u = inputs[0], &k = inputs[1];
    ember_fft_conv conv = describe(u, k, n_);
    conv.u = strides_of(u);
    conv.k_tap = k.strides(0);
    conv.k_filter = k.strides(1);
    if (n_.backward) conv.g = strides_of(inputs[2]);
    for (mx::array& out : outputs) out.set_data(mx::allocator::malloc(out.nbytes()));
    auto& encoder = mx::cpu::get_command_encoder(stream());
    for (const mx::array& in : inputs) encoder.set_input_array(in);
    for (mx::array& out : outputs) encoder.set_output_array(out);
    const void *up = u.data<void>(), *kp = k.data<void>();
    const void* g = n_.backward ? inputs[2].data<void>() : nullptr;
    const void* d = n_.skips ? inputs.back().data<void>() : nullptr;
    const int threads = n_.threads;
    if (!n_.backward) {
      void* y = outputs[0].data<void>();
      encoder.dispatch([=] {
        check(kernel.forward(&conv, up, kp, d, nullptr, nullptr, y, nullptr, 0, threads));
      });
      return;
    }
    std::array<void*, 3> out = {};
    for (size_t i = 0, at = 0; i < 3; ++i) {
      if (n_.wanted[i]) out[i] = outputs[at++].data<void>();
    }
    // Of what describe() does not refuse memory alone can be missing, which ends the process here.
    encoder.dispatch([=] {
      check(kernel.backward(&conv, up, kp, d, nullptr, nullptr, g, out[0], out[1], out[2], nullptr,
                            nullptr, nullptr, 0, threads));
    });
  }

  void eval_gpu(const Arrays&, Arrays&) override {
    throw std::runtime_error("fft_conv: the C++ kernel runs on processors.");
  }

  // With <g, y> = F(u, k, g) + S(u, d, g), linear in each, F and S give the gradients of all orders.
  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays&) override {
    const mx::array &u = primals[0], &k = primals[1];
    const Maybe d = skips_of(primals);
    std::array<Maybe, 4> found;  // du, dk, dd, dg
    const auto asked = [&](int i) {
      return std::find(argnums.begin(), argnums.end(), place(i)) != argnums.end();
    };
    if (!n_.backward) {
      const auto slopes = gradients(u, k, cotangents[0], d, {asked(0), asked(1), asked(2)});
      std::copy(slopes.begin(), slopes.end(), found.begin());
    } else {
      // For cotangents a, b, c of du, dk, dd: F(a, k, g) + S(a, d, g) + F(u, b, g) + S(u, c, g).
      const mx::array& g = primals[2];
      std::array<Maybe, 3> of;
      for (size_t i = 0, at = 0; i < 3; ++i) {
        if (n_.wanted[i]) of[i] = cotangents[at++];
      }
      const auto& [a, b, c] = of;
      if (a) {
        const auto slopes = gradients(*a, k, g, d, {false, asked(1), asked(2)});
        found[1] = slopes[1];
        found[2] = slopes[2];
        if (asked(3)) add(&found[3], forward(*a, k, d));
      }
      if (b || c) {
        const mx::array filters = b ? *b : mx::zeros_like(k, stream());
        if (asked(0)) found[0] = gradients(u, filters, g, c, {true, false, false})[0];
        if (asked(3)) add(&found[3], forward(u, filters, c));
      }
    }
    Arrays results;
    for (int argnum : argnums) {
      for (int i = 0; i < 4; ++i) {
        if (place(i) != argnum) continue;
        results.push_back(found[i] ? *found[i] : mx::zeros_like(primals[argnum], stream()));
      }
    }
    return results;
  }

  Arrays jvp(const Arrays& primals, const Arrays& tangents,
             const std::vector<int>& argnums) override {
    const mx::array &u = primals[0], &k = primals[1];
    const Maybe d = skips_of(primals);
    std::array<Maybe, 4> t;  // of u, k, d, g
    for (size_t at = 0; at < argnums.size(); ++at) {
      for (int i = 0; i < 4; ++i) {
        if (place(i) == argnums[at]) t[i] = tangents[at];
      }
    }
    const auto filters = [&] { return t[1] ? *t[1] : mx::zeros_like(k, stream()); };
    std::array<Maybe, 3> sums;  // y, or du, dk, dd
    if (!n_.backward) {
      if (t[0]) add(&sums[0], forward(*t[0], k, d));
      if (t[1] || t[2]) add(&sums[0], forward(u, filters(), t[2]));
      return {*sums[0]};
    }
    const mx::array& g = primals[2];
    const auto add_all = [&](const std::array<Maybe, 3>& slopes) {
      for (int i = 0; i < 3; ++i) {
        if (slopes[i]) add(&sums[i], *slopes[i]);
      }
    };
    if (t[0]) add_all(gradients(*t[0], k, g, d, {false, n_.wanted[1], n_.wanted[2]}));
    if (t[1] || t[2]) add_all(gradients(u, filters(), g, t[2], {n_.wanted[0], false, false}));
    if (t[3]) add_all(gradients(u, k, *t[3], d, n_.wanted));
    Arrays results;
    for (int i = 0; i < 3; ++i) {
      if (!n_.wanted[i]) continue;
      const mx::array& like = i == 0 ? u : i == 1 ? k : *d;
      results.push_back(sums[i] ? *sums[i] : mx::zeros_like(like, stream()));
    }
    return results;
  }

  // Each entry of the mapped axes on its own; where the signals alone are mapped, all as one batch.
  std::pair<Arrays, std::vector<int>> vmap(const Arrays& inputs,
                                           const std::vector<int>& axes) override {
    Arrays moved;
    int entries = 1;
    bool others = n_.backward;
    for (size_t i = 0; i < inputs.size(); ++i) {
      moved.push_back(axes[i] > 0 ? mx::moveaxis(inputs[i], axes[i], 0, stream()) : inputs[i]);
      if (axes[i] >= 0) entries = moved[i].shape(0);
      others = others || (i > 0 && axes[i] >= 0);
    }
    if (!others) {
      const int batch = moved[0].shape(1);
      moved[0] = mx::flatten(moved[0], 0, 1, stream());
      const mx::array y = call(moved, n_, stream())[0];
      return {{mx::unflatten(y, 0, {entries, batch}, stream())}, {0}};
    }
    std::vector<Arrays> each;
    for (int e = 0; e < entries; ++e) {
      Arrays given;
      for (size_t i = 0; i < inputs.size(); ++i) {
        given.push_back(axes[i] < 0 ? moved[i] : mx::take(moved[i], e, 0, stream()));
      }
      const Arrays outputs = call(given, n_, stream());
      each.resize(outputs.size());
      for (size_t i = 0; i < outputs.size(); ++i) each[i].push_back(outputs[i]);
    }
    Arrays stacked;
    for (const Arrays& entry : each) stacked.push_back(mx::stack(entry, 0, stream()));
    return {stacked, std::vector<int>(stacked.size(), 0)};
  }

  const char* name() const override { return n_.backward ? "EmberFftConvVJP" : "EmberFftConv"; }

  bool is_equivalent(const Primitive& other) const override {
    return n_ == static_cast<const Convolution&>(other).n_;
  }

  std::vector<mx::Shape> output_shapes(const Arrays& inputs) override {
    const mx::Shape &u = inputs[0].shape(), &k = inputs[1].shape();
    if (!n_.backward) return {{u[0], mx::ShapeElem(n_.length), u[2]}};
    std::vector<mx::Shape> shapes;
    if (n_.wanted[0]) shapes.push_back(u);
    if (n_.wanted[1]) shapes.push_back(k);
    if (n_.wanted[2]) shapes.push_back({u[2]});
    return shapes;
  }

  std::vector<mx::Dtype> dtypes(const Arrays& inputs) const {
    const mx::Dtype u = inputs[0].dtype(), k = inputs[1].dtype();
    if (!n_.backward) return {u};
    std::vector<mx::Dtype> all;
    if (n_.wanted[0]) all.push_back(u);
    if (n_.wanted[1]) all.push_back(k);
    if (n_.wanted[2]) all.push_back(k);
    return all;
  }

 private:
  // Where u, k, d and g are among the inputs, or -1.
  int place(int which) const {
    if (which < 2) return which;
    if (which == 3) return n_.backward ? 2 : -1;
    return n_.skips ? int(n_.inputs()) - 1 : -1;
  }

  Maybe skips_of(const Arrays& inputs) const { return n_.skips ? Maybe(inputs.back()) : Maybe(); }

  mx::array forward(const mx::array& u, const mx::array& k, const Maybe& d) {
    Numbers n = n_;
    n.backward = false;
    n.skips = d.has_value();
    Arrays inputs = {u, k};
    if (d) inputs.push_back(*d);
    return call(inputs, n, stream())[0];
  }

  std::array<Maybe, 3> gradients(const mx::array& u, const mx::array& k, const mx::array& g,
                                 const Maybe& d, std::array<bool, 3> wanted) {
    wanted[2] = wanted[2] && d;
    std::array<Maybe, 3> found;
    if (wanted == std::array<bool, 3>()) return found;
    Numbers n = n_;
    n.backward = true;
    n.skips = d.has_value();
    n.wanted = wanted;
    Arrays inputs = {u, k, g};
    if (d) inputs.push_back(*d);
    const Arrays outputs = call(inputs, n, stream());
    for (size_t i = 0, at = 0; i < 3; ++i) {
      if (wanted[i]) found[i] = outputs[at++];
    }
    return found;
  }

  void add(Maybe* sum, const mx::array& x) { *sum = *sum ? mx::add(**sum, x, stream()) : x; }

  Numbers n_;
};

Arrays call(Arrays inputs, const Numbers& n, const mx::Stream& stream) {
  const mx::array &u = inputs[0], &k = inputs[1];
  if (u.ndim() != 3 || k.ndim() != 2) {
    throw std::invalid_argument("fft_conv: expected u (B, T, D) and k (taps, F).");
  }
  describe(u, k, n);  // refuses what the kernel refuses, before anything is computed
  if (n.backward) {
    inputs[2] = mx::astype(inputs[2], u.dtype(), stream);
    if (inputs[2].shape() != mx::Shape{u.shape(0), mx::ShapeElem(n.length), u.shape(2)}) {
      throw std::invalid_argument("fft_conv: expected g (B, length, D).");
    }
  }
  if (n.skips) {  // read as dense: one that is so is not copied
    inputs.back() = mx::contiguous(mx::astype(inputs.back(), k.dtype(), stream), false, stream);
    if (inputs.back().shape() != mx::Shape{u.shape(2)}) {
      throw std::invalid_argument("fft_conv: expected d (D,).");
    }
  }
  const auto primitive = std::make_shared<Convolution>(stream, n);
  return mx::array::make_arrays(primitive->output_shapes(inputs), primitive->dtypes(inputs),
                                primitive, inputs);
}

mx::array convolve(const Arrays& inputs, int64_t start, int64_t length, int64_t skip, int threads) {
  if (!kernel.forward) throw std::runtime_error("fft_conv: connect the kernel first.");
  Numbers n = {start, length, skip, threads};
  n.skips = inputs.size() == 3;
  if (inputs.size() != n.inputs()) throw std::invalid_argument("fft_conv: expected u, k and maybe d.");
  return call(inputs, n, mx::default_stream(mx::Device::cpu))[0];
}

template <class F>
void set(F* function, uintptr_t address) {
  *function = reinterpret_cast<F>(address);
}

}  // namespace

NB_MODULE(_fft_conv_mlx, m) {
  m.attr("version") = EMBER_FFT_CONV_VERSION;
  // False where mlx was built with another nanobind than this.
  m.def("is_array", [](nb::handle x) { return nb::isinstance<mx::array>(x); });
  m.def("connect", [](uintptr_t forward, uintptr_t backward, uintptr_t scratch, uintptr_t error) {
    set(&kernel.forward, forward);
    set(&kernel.backward, backward);
    set(&kernel.scratch, scratch);
    set(&kernel.error, error);
  });
  m.def("convolve", &convolve, nb::arg("inputs"), nb::kw_only(), nb::arg("start"), nb::arg("length"),
        nb::arg("skip"), nb::arg("threads"));
}
