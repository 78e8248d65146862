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
#include <mlx/transforms.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>

#include "mlx_call.h"

namespace nb = nanobind;

namespace {

using namespace ember_mlx;
using Maybe = std::optional<mx::array>;

Arrays call(Arrays inputs, const Numbers& numbers, const mx::Stream& stream);

class Convolution : public mx::Primitive {
 public:
  Convolution(mx::Stream stream, const Numbers& numbers) : Primitive(stream), n_(numbers) {}

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override {
    const auto in = [&](int operand) {
      const int at = n_.place(operand);
      return at < 0 ? nullptr : &inputs[at];
    };
    ember_fft_conv conv = describe(*in(kU), *in(kK), n_);
    conv.k_tap = in(kK)->strides(0);
    conv.k_filter = in(kK)->strides(1);
    for (const auto& [operand, strides] : {std::pair(kU, &conv.u), std::pair(kG, &conv.g),
                                           std::pair(kGateIn, &conv.gate_in),
                                           std::pair(kGateOut, &conv.gate_out)}) {
      if (in(operand)) *strides = strides_of(*in(operand));
    }
    for (mx::array& out : outputs) out.set_data(mx::allocator::malloc(out.nbytes()));
    auto& encoder = mx::cpu::get_command_encoder(stream());
    for (const mx::array& x : inputs) encoder.set_input_array(x);
    for (mx::array& out : outputs) encoder.set_output_array(out);
    std::array<const void*, kOperands> p = {};
    for (int i = 0; i < kOperands; ++i) p[i] = in(i) ? in(i)->data<void>() : nullptr;
    const int threads = n_.threads;
    std::vector<Room> results;
    for (mx::array& out : outputs) results.push_back({out.data<void>(), out.nbytes()});
    if (!n_.backward) {
      void* y = outputs[0].data<void>();
      encoder.dispatch([=] {
        finish(kernel.forward(&conv, p[kU], p[kK], p[kD], p[kGateIn], p[kGateOut], y, nullptr, 0,
                              threads), results);
      });
      return;
    }
    std::array<void*, kGradients> out = {};
    for (size_t i = 0, at = 0; i < out.size(); ++i) {
      if (n_.wanted[i]) out[i] = outputs[at++].data<void>();
    }
    encoder.dispatch([=] {
      finish(kernel.backward(&conv, p[kU], p[kK], p[kD], p[kGateIn], p[kGateOut], p[kG], out[kU],
                             out[kK], out[kD], out[kGateIn], out[kGateOut], nullptr, 0, threads),
             results);
    });
  }

  void eval_gpu(const Arrays&, Arrays&) override {
    throw std::runtime_error("fft_conv: the C++ kernel runs on processors.");
  }

  // With <g, y> = F(u, k, g) + S(u, d, g), linear in each, F and S give the gradients of all orders.
  // With gates the kernel has those of first order; further ones are of `apart`.
  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums,
             const Arrays&) override {
    std::array<Maybe, kOperands> found;  // gradients
    const auto asked = [&](int operand) {
      return std::find(argnums.begin(), argnums.end(), n_.place(operand)) != argnums.end();
    };
    if (!n_.backward) {
      Numbers n = n_;
      n.backward = true;
      for (int i = 0; i < kGradients; ++i) n.wanted[i] = n_.place(i) >= 0 && asked(i);
      Arrays inputs = primals;
      inputs.insert(inputs.begin() + 2, cotangents[0]);
      Arrays slopes = call(inputs, n, stream());
      for (int i = 0, at = 0; i < kGradients; ++i) {
        if (n.wanted[i]) found[i] = slopes[at++];
      }
    } else if (n_.gated()) {
      const Arrays slopes = mx::vjp([this](const Arrays& in) { return apart(in); }, primals,
                                    cotangents).second;
      for (int i = 0; i < kOperands; ++i) {
        if (n_.place(i) >= 0) found[i] = slopes[n_.place(i)];
      }
    } else {
      // For cotangents a, b, c of du, dk, dd: F(a, k, g) + S(a, d, g) + F(u, b, g) + S(u, c, g).
      const mx::array &u = primals[0], &k = primals[1], &g = primals[2];
      const Maybe d = operand_of(primals, kD);
      std::array<Maybe, 3> of;
      for (size_t i = 0, at = 0; i < 3; ++i) {
        if (n_.wanted[i]) of[i] = cotangents[at++];
      }
      const auto& [a, b, c] = of;
      if (a) {
        const auto slopes = gradients(*a, k, g, d, {false, asked(kK), asked(kD)});
        found[kK] = slopes[1];
        found[kD] = slopes[2];
        if (asked(kG)) add(&found[kG], forward(*a, k, d));
      }
      if (b || c) {
        const mx::array filters = b ? *b : mx::zeros_like(k, stream());
        if (asked(kU)) found[kU] = gradients(u, filters, g, c, {true, false, false})[0];
        if (asked(kG)) add(&found[kG], forward(u, filters, c));
      }
    }
    Arrays results;
    for (int argnum : argnums) {
      for (int i = 0; i < kOperands; ++i) {
        if (n_.place(i) != argnum) continue;
        results.push_back(found[i] ? *found[i] : mx::zeros_like(primals[argnum], stream()));
      }
    }
    return results;
  }

  Arrays jvp(const Arrays& primals, const Arrays& tangents,
             const std::vector<int>& argnums) override {
    if (n_.gated()) {
      Arrays along;
      for (const mx::array& x : primals) along.push_back(mx::zeros_like(x, stream()));
      for (size_t at = 0; at < argnums.size(); ++at) along[argnums[at]] = tangents[at];
      return mx::jvp([this](const Arrays& in) { return apart(in); }, primals, along).second;
    }
    const mx::array &u = primals[0], &k = primals[1];
    const Maybe d = operand_of(primals, kD);
    std::array<Maybe, kOperands> t;
    for (size_t at = 0; at < argnums.size(); ++at) {
      for (int i = 0; i < kOperands; ++i) {
        if (n_.place(i) == argnums[at]) t[i] = tangents[at];
      }
    }
    const auto filters = [&] { return t[kK] ? *t[kK] : mx::zeros_like(k, stream()); };
    std::array<Maybe, 3> sums;  // y, or du, dk, dd
    if (!n_.backward) {
      if (t[kU]) add(&sums[0], forward(*t[kU], k, d));
      if (t[kK] || t[kD]) add(&sums[0], forward(u, filters(), t[kD]));
      return {*sums[0]};
    }
    const mx::array& g = primals[2];
    const std::array<bool, 3> wanted = {n_.wanted[0], n_.wanted[1], n_.wanted[2]};
    const auto add_all = [&](const std::array<Maybe, 3>& slopes) {
      for (int i = 0; i < 3; ++i) {
        if (slopes[i]) add(&sums[i], *slopes[i]);
      }
    };
    if (t[kU]) add_all(gradients(*t[kU], k, g, d, {false, wanted[1], wanted[2]}));
    if (t[kK] || t[kD]) add_all(gradients(u, filters(), g, t[kD], {wanted[0], false, false}));
    if (t[kG]) add_all(gradients(u, k, *t[kG], d, wanted));
    Arrays results;
    for (int i = 0; i < 3; ++i) {
      if (!wanted[i]) continue;
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
    bool others = n_.backward || n_.gated();
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
    const mx::Shape y = {u[0], mx::ShapeElem(n_.length), u[2]};
    const std::array<mx::Shape, kGradients> all = {u, k, mx::Shape{u[2]}, u, y};
    std::vector<mx::Shape> shapes;
    for (int i = 0; i < kGradients; ++i) {
      if (n_.wanted[i]) shapes.push_back(all[i]);
    }
    return shapes;
  }

  std::vector<mx::Dtype> dtypes(const Arrays& inputs) const {
    const mx::Dtype u = inputs[0].dtype(), k = inputs[1].dtype();
    if (!n_.backward) return {u};
    std::vector<mx::Dtype> all;
    for (int i = 0; i < kGradients; ++i) {
      if (n_.wanted[i]) all.push_back(i == kK || i == kD ? k : u);
    }
    return all;
  }

 private:
  Maybe operand_of(const Arrays& inputs, int operand) const {
    const int at = n_.place(operand);
    return at < 0 ? Maybe() : Maybe(inputs[at]);
  }

  // The same with the gates outside the kernel.
  Arrays apart(const Arrays& inputs) {
    const mx::array &u = inputs[0], &k = inputs[1];
    const Maybe d = operand_of(inputs, kD), in = operand_of(inputs, kGateIn);
    const Maybe out = operand_of(inputs, kGateOut);
    const auto times = [&](const mx::array& x, const Maybe& gate) {
      return gate ? mx::multiply(x, *gate, stream()) : x;
    };
    const mx::array x = times(u, in);
    if (!n_.backward) return {times(forward(x, k, d), out)};
    const mx::array& g = inputs[2];
    const bool signal = n_.wanted[kU] || n_.wanted[kGateIn];
    const auto slopes = gradients(x, k, times(g, out), d, {signal, n_.wanted[kK], n_.wanted[kD]});
    Arrays results;
    if (n_.wanted[kU]) results.push_back(times(*slopes[0], in));
    if (n_.wanted[kK]) results.push_back(*slopes[1]);
    if (n_.wanted[kD]) results.push_back(*slopes[2]);
    if (n_.wanted[kGateIn]) results.push_back(times(*slopes[0], u));
    if (n_.wanted[kGateOut]) results.push_back(times(forward(x, k, d), g));
    return results;
  }

  mx::array forward(const mx::array& u, const mx::array& k, const Maybe& d) {
    Numbers n = ungated();
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
    Numbers n = ungated();
    n.backward = true;
    n.skips = d.has_value();
    std::copy(wanted.begin(), wanted.end(), n.wanted.begin());
    Arrays inputs = {u, k, g};
    if (d) inputs.push_back(*d);
    const Arrays outputs = call(inputs, n, stream());
    for (size_t i = 0, at = 0; i < 3; ++i) {
      if (wanted[i]) found[i] = outputs[at++];
    }
    return found;
  }

  Numbers ungated() const { return {n_.start, n_.length, n_.skip, n_.threads}; }

  void add(Maybe* sum, const mx::array& x) { *sum = *sum ? mx::add(**sum, x, stream()) : x; }

  Numbers n_;
};

Arrays call(Arrays inputs, const Numbers& n, const mx::Stream& stream) {
  const mx::array &u = inputs[0], &k = inputs[1];
  if (u.ndim() != 3 || k.ndim() != 2) {
    throw std::invalid_argument("fft_conv: expected u (B, T, D) and k (taps, F).");
  }
  describe(u, k, n);  // refuses what the kernel refuses, before anything is computed
  const auto signal = [&](int operand, const char* name, int64_t length) {
    const int at = n.place(operand);
    if (at < 0) return;
    inputs[at] = mx::astype(inputs[at], inputs[0].dtype(), stream);
    if (inputs[at].shape() != mx::Shape{u.shape(0), mx::ShapeElem(length), u.shape(2)}) {
      throw std::invalid_argument(std::string("fft_conv: expected ") + name + ".");
    }
  };
  signal(kG, "g (B, length, D)", n.length);
  signal(kGateIn, "gate_in like u", u.shape(1));
  signal(kGateOut, "gate_out (B, length, D)", n.length);
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

mx::array convolve(const Arrays& inputs, int64_t start, int64_t length, int64_t skip, int threads,
                   bool gate_in, bool gate_out) {
  if (!kernel.forward) throw std::runtime_error("fft_conv: connect the kernel first.");
  report_failure();
  Numbers n = {start, length, skip, threads};
  n.gate_in = gate_in;
  n.gate_out = gate_out;
  n.skips = int(inputs.size()) == n.inputs() + 1;
  if (int(inputs.size()) != n.inputs()) {
    throw std::invalid_argument("fft_conv: expected u, k, the gates that there are, and maybe d.");
  }
  return call(inputs, n, mx::default_stream(mx::Device::cpu))[0];
}

template <class F>
void set(F* function, uintptr_t address) {
  *function = reinterpret_cast<F>(address);
}

}  // namespace

NB_MODULE(_fft_conv_mlx, m) {
  m.attr("version") = nb::make_tuple(EMBER_FFT_CONV_VERSION, 2);  // the kernel's, and its own
  // False where mlx was built with another nanobind than this.
  m.def("is_array", [](nb::handle x) { return nb::isinstance<mx::array>(x); });
  m.def("connect", [](uintptr_t forward, uintptr_t backward, uintptr_t scratch, uintptr_t error) {
    set(&kernel.forward, forward);
    set(&kernel.backward, backward);
    set(&kernel.scratch, scratch);
    set(&kernel.error, error);
  });
  m.def("convolve", &convolve, nb::arg("inputs"), nb::kw_only(), nb::arg("start"), nb::arg("length"),
        nb::arg("skip"), nb::arg("threads"), nb::arg("gate_in"), nb::arg("gate_out"));
}
