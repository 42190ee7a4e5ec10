// Fourier transforms of one instruction set, of many signals side by side. No include guard.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

/// One pass of Stockham's transform with radix r over n / (r s) blocks of r runs of `run` = s ·
/// lanes numbers: inputs x at run · (p + m k), outputs y at run · (r p + j), times w^{j p}, w =
/// e^{−2πi r s / n …}; `roots` holds e^{−2πi t / n} for t = 0 … n − 1 (cosines, then sines).
template <int kRadix>
GRAFT_SIMD_FN inline void fft_pass(Index n, Index s, Index run, const float* xr, const float* xi,
                                   float* yr, float* yi, const float* roots) noexcept {
  const Index m = n / (kRadix * s);
  for (Index p = 0; p < m; ++p) {
    float wr[kRadix], wi[kRadix];
    for (int j = 1; j < kRadix; ++j) {
      wr[j] = roots[j * p * s];
      wi[j] = roots[n + j * p * s];
    }
    for (Index t = 0; t < run; t += kLanes) {
      Floats ar[kRadix], ai[kRadix], br[kRadix], bi[kRadix];
      GRAFT_UNROLL
      for (int k = 0; k < kRadix; ++k) {
        ar[k] = load(xr + run * (p + m * k) + t);
        ai[k] = load(xi + run * (p + m * k) + t);
      }
      if constexpr (kRadix == 2) {
        br[0] = ar[0] + ar[1];
        bi[0] = ai[0] + ai[1];
        br[1] = ar[0] - ar[1];
        bi[1] = ai[0] - ai[1];
      } else if constexpr (kRadix == 3) {
        const Floats sr = ar[1] + ar[2], si = ai[1] + ai[2];
        const Floats dr = (ar[1] - ar[2]) * 0.86602540378443864676f;
        const Floats di = (ai[1] - ai[2]) * 0.86602540378443864676f;
        const Floats mr = ar[0] - sr * 0.5f, mi = ai[0] - si * 0.5f;
        br[0] = ar[0] + sr;
        bi[0] = ai[0] + si;
        br[1] = mr + di;
        bi[1] = mi - dr;
        br[2] = mr - di;
        bi[2] = mi + dr;
      } else {
        const Floats er = ar[0] + ar[2], ei = ai[0] + ai[2];
        const Floats fr = ar[0] - ar[2], fi = ai[0] - ai[2];
        const Floats gr = ar[1] + ar[3], gi = ai[1] + ai[3];
        const Floats hr = ar[1] - ar[3], hi = ai[1] - ai[3];
        br[0] = er + gr;
        bi[0] = ei + gi;
        br[1] = fr + hi;
        bi[1] = fi - hr;
        br[2] = er - gr;
        bi[2] = ei - gi;
        br[3] = fr - hi;
        bi[3] = fi + hr;
      }
      const Index to = run * kRadix * p + t;
      store(yr + to, br[0]);
      store(yi + to, bi[0]);
      GRAFT_UNROLL
      for (int j = 1; j < kRadix; ++j) {
        store(yr + to + run * j, br[j] * wr[j] - bi[j] * wi[j]);
        store(yi + to + run * j, br[j] * wi[j] + bi[j] * wr[j]);
      }
    }
  }
}

/// The same for any radix, by its definition.
GRAFT_SIMD_FN inline void fft_pass_any(Index radix, Index n, Index s, Index run, const float* xr,
                                       const float* xi, float* yr, float* yi,
                                       const float* roots) noexcept {
  const Index m = n / (radix * s), turn = n / radix;
  for (Index p = 0; p < m; ++p)
    for (Index j = 0; j < radix; ++j) {
      const float wr = roots[j * p * s], wi = roots[n + j * p * s];
      for (Index t = 0; t < run; t += kLanes) {
        Floats sr = {}, si = {};
        for (Index k = 0; k < radix; ++k) {
          const Index at = j * k % radix * turn;
          const float cr = roots[at], ci = roots[n + at];
          const Floats ar = load(xr + run * (p + m * k) + t), ai = load(xi + run * (p + m * k) + t);
          sr += ar * cr - ai * ci;
          si += ar * ci + ai * cr;
        }
        const Index to = run * (radix * p + j) + t;
        store(yr + to, sr * wr - si * wi);
        store(yi + to, sr * wi + si * wr);
      }
    }
}

GRAFT_SIMD_FN inline void fft_pass_of(Index radix, Index n, Index s, Index run, const float* xr,
                                      const float* xi, float* yr, float* yi,
                                      const float* roots) noexcept {
  switch (radix) {
    case 2:
      return fft_pass<2>(n, s, run, xr, xi, yr, yi, roots);
    case 3:
      return fft_pass<3>(n, s, run, xr, xi, yr, yi, roots);
    case 4:
      return fft_pass<4>(n, s, run, xr, xi, yr, yi, roots);
    default:
      return fft_pass_any(radix, n, s, run, xr, xi, yr, yi, roots);
  }
}

/// Spectra of two real signals from that of their sum a + i b, for frequency f and its mirror g.
GRAFT_SIMD_FN inline void fft_split(const float* fr, const float* fi, const float* gr,
                                    const float* gi, float* ar, float* ai, float* br, float* bi,
                                    Index lanes) noexcept {
  for (Index t = 0; t < lanes; t += kLanes) {
    const Floats zr = load(fr + t), zi = load(fi + t), mr = load(gr + t), mi = load(gi + t);
    store(ar + t, (zr + mr) * 0.5f);
    store(ai + t, (zi - mi) * 0.5f);
    store(br + t, (zi + mi) * 0.5f);
    store(bi + t, (mr - zr) * 0.5f);
  }
}

/// The spectrum of a + i b, times `factor`, for frequency f and its mirror g from those of a and b.
GRAFT_SIMD_FN inline void fft_join(const float* ar, const float* ai, const float* br,
                                   const float* bi, float factor, float* fr, float* fi, float* gr,
                                   float* gi, Index lanes) noexcept {
  for (Index t = 0; t < lanes; t += kLanes) {
    const Floats ur = load(ar + t) * factor, ui = load(ai + t) * factor;
    const Floats vr = load(br + t) * factor, vi = load(bi + t) * factor;
    store(gr + t, ur + vi);
    store(gi + t, vr - ui);
    store(fr + t, ur - vi);
    store(fi + t, ui + vr);
  }
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
