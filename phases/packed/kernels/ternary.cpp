// y = x Wᵀ for ternary W at 2 bits a weight and x on 255 levels: integer dot products, then the scales.
//
// Built on first use by build.py; layout.py writes what is read here. A tile is 16 rows; a step is 16 columns of a
// tile in 64 bytes. Byte 4 r + j of a step holds code + 1 of row r, columns 4 p + j, at bits 2 p and 2 p + 1: so one
// 512-bit load, four masks and four `vpdpbusd` (4 products a lane, a lane a row) do 256 weights without a horizontal
// sum, which llama.cpp's row-wise TQ2_0 needs for every block. The + 1 makes codes unsigned; subtracting the sum of
// the activations of a group undoes it.
//
// Nothing of torch or Python is included: it compiles in a second or two, and any C++17 compiler will do.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int ROWS = 16, STEP = 16, STEP_BYTES = 64, BATCH = 4;

struct Matrix {
    const uint8_t* codes;    // [tiles][groups][steps][64]
    const uint16_t* scales;  // [tiles][groups][16], float16
    int64_t rows, columns, group, groups, steps;  // of real rows and columns; steps: of one group, the last one padded
};

struct Activations {
    const int8_t* codes;  // [groups][steps][16], zeros where there is no column
    const int32_t* sums;  // [groups]
};

float from_half(uint16_t half) {
    const uint32_t bits = (half & 0x7fffu) << 13 | (half & 0x8000u) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value * 0x1p112f;  // moves the exponent's bias from 15 to 127; right for subnormals too
}

// One token on 255 levels (BitNet b1.58, arXiv 2402.17764): step = max(|x|, 1e-5) / 127, round half to even. Returns
// the step; NaN where x has a NaN or an infinity, so that these reach the output.
float round_token(const float* x, const Matrix& m, int8_t* codes, int32_t* sums) {
    uint32_t largest = 0;  // magnitudes order as their bits do, with NaN last
    for (int64_t i = 0; i < m.columns; ++i) {
        uint32_t bits;
        std::memcpy(&bits, x + i, 4);
        largest = std::max(largest, bits & 0x7fffffffu);
    }
    const int64_t padded = m.steps * STEP;
    if (largest >= 0x7f800000u) {
        std::memset(codes, 0, m.groups * padded);
        std::memset(sums, 0, m.groups * sizeof(int32_t));
        return NAN;
    }
    float magnitude;
    std::memcpy(&magnitude, &largest, 4);
    const float step = std::max(magnitude, 1e-5f) / 127.0f;
    for (int64_t g = 0; g < m.groups; ++g) {
        const float* from = x + g * m.group;
        int8_t* to = codes + g * padded;
        const int64_t width = std::min(m.group, m.columns - g * m.group);
        int32_t sum = 0;
        for (int64_t i = 0; i < width; ++i) {
            // Adding and taking away 1.5 · 2²³ rounds half to even, and vectorises where rint() does not.
            const int32_t code = static_cast<int32_t>((from[i] / step + 12582912.0f) - 12582912.0f);
            to[i] = static_cast<int8_t>(code);
            sum += code;
        }
        std::memset(to + width, 0, padded - width);
        sums[g] = sum;
    }
    return step;
}

// Each `tile_*` writes out[n][r] = Σ_g scale · Σ_i code · x of N tokens and the 16 rows of one tile.

template <int N>
void tile_portable(const Matrix& m, int64_t tile, const Activations* x, float (*out)[ROWS]) {
    const uint8_t* codes = m.codes + tile * m.groups * m.steps * STEP_BYTES;
    const uint16_t* scales = m.scales + tile * m.groups * ROWS;
    std::memset(out, 0, sizeof(float) * N * ROWS);
    for (int64_t g = 0; g < m.groups; ++g, scales += ROWS, codes += m.steps * STEP_BYTES)
        for (int n = 0; n < N; ++n) {
            const int8_t* values = x[n].codes + g * m.steps * STEP;
            for (int r = 0; r < ROWS; ++r) {
                int32_t sum = -x[n].sums[g];
                for (int64_t s = 0; s < m.steps; ++s)
                    for (int k = 0; k < STEP; ++k)
                        sum += (codes[s * STEP_BYTES + 4 * r + k % 4] >> k / 4 * 2 & 3) * values[s * STEP + k];
                out[n][r] += from_half(scales[r]) * static_cast<float>(sum);
            }
        }
}

#if defined(__x86_64__)

inline int32_t four(const int8_t* values) {
    int32_t word;
    std::memcpy(&word, values, 4);
    return word;
}

template <int N>
__attribute__((target("avx2,fma,f16c"))) void tile_avx2(
    const Matrix& m, int64_t tile, const Activations* x, float (*out)[ROWS]) {
    const __m256i three = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
    for (int half = 0; half < 2; ++half) {
        const uint8_t* codes = m.codes + tile * m.groups * m.steps * STEP_BYTES + 32 * half;
        const uint16_t* scales = m.scales + tile * m.groups * ROWS + 8 * half;
        __m256 total[N];
        for (int n = 0; n < N; ++n) total[n] = _mm256_setzero_ps();
        for (int64_t g = 0; g < m.groups; ++g, scales += ROWS) {
            __m256i sum[N];
            for (int n = 0; n < N; ++n) sum[n] = _mm256_set1_epi32(-x[n].sums[g]);
            for (int64_t s = 0; s < m.steps;) {
                __m256i narrow[N];
                for (int n = 0; n < N; ++n) narrow[n] = _mm256_setzero_si256();
                // 16 steps of 4 sums of two products ≤ 254 stay below 2¹⁵.
                for (const int64_t end = std::min(s + 16, m.steps); s < end; ++s, codes += STEP_BYTES) {
                    __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
                    for (int p = 0; p < 4; ++p, word = _mm256_srli_epi16(word, 2)) {
                        const __m256i plane = _mm256_and_si256(word, three);
                        for (int n = 0; n < N; ++n) {
                            const int32_t values = four(x[n].codes + (g * m.steps + s) * STEP + 4 * p);
                            const __m256i pairs = _mm256_maddubs_epi16(plane, _mm256_set1_epi32(values));
                            narrow[n] = _mm256_add_epi16(narrow[n], pairs);
                        }
                    }
                }
                for (int n = 0; n < N; ++n)
                    sum[n] = _mm256_add_epi32(sum[n], _mm256_madd_epi16(narrow[n], ones));
            }
            const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales)));
            for (int n = 0; n < N; ++n) total[n] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[n]), scale, total[n]);
        }
        for (int n = 0; n < N; ++n) _mm256_storeu_ps(out[n] + 8 * half, total[n]);
    }
}

template <int N>
__attribute__((target("avx512f,avx512bw,avx512vnni"))) void tile_avx512(
    const Matrix& m, int64_t tile, const Activations* x, float (*out)[ROWS]) {
    const uint8_t* codes = m.codes + tile * m.groups * m.steps * STEP_BYTES;
    const uint16_t* scales = m.scales + tile * m.groups * ROWS;
    const __m512i masks[4] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x30),
                              _mm512_set1_epi8(static_cast<char>(0xc0))};
    __m512 total[N];
    for (int n = 0; n < N; ++n) total[n] = _mm512_setzero_ps();
    for (int64_t g = 0; g < m.groups; ++g, scales += ROWS) {
        __m512i sum[N][4];  // plane p stays multiplied by 4ᵖ until the group ends, which saves its shifts
        for (int n = 0; n < N; ++n) {
            sum[n][0] = _mm512_set1_epi32(-x[n].sums[g]);
            for (int p = 1; p < 4; ++p) sum[n][p] = _mm512_setzero_si512();
        }
        const int64_t start = g * m.steps * STEP;
        for (int64_t s = 0; s < m.steps; ++s, codes += STEP_BYTES) {
            const __m512i word = _mm512_loadu_si512(codes);
            for (int p = 0; p < 4; ++p) {
                const __m512i plane = _mm512_and_si512(word, masks[p]);
                for (int n = 0; n < N; ++n) {
                    const __m512i values = _mm512_set1_epi32(four(x[n].codes + start + s * STEP + 4 * p));
                    sum[n][p] = _mm512_dpbusd_epi32(sum[n][p], plane, values);
                }
            }
        }
        const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
        for (int n = 0; n < N; ++n) {
            const __m512i low = _mm512_add_epi32(sum[n][0], _mm512_srai_epi32(sum[n][1], 2));
            const __m512i high = _mm512_add_epi32(_mm512_srai_epi32(sum[n][2], 4), _mm512_srai_epi32(sum[n][3], 6));
            total[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(low, high)), scale, total[n]);
        }
    }
    for (int n = 0; n < N; ++n) _mm512_storeu_ps(out[n], total[n]);
}

#endif

template <int N>
void tile_of(int instructions, const Matrix& m, int64_t tile, const Activations* x, float (*out)[ROWS]) {
#if defined(__x86_64__)
    if (instructions == 2) return tile_avx512<N>(m, tile, x, out);
    if (instructions == 1) return tile_avx2<N>(m, tile, x, out);
#endif
    tile_portable<N>(m, tile, x, out);
}

}  // namespace

// 2: AVX-512 VNNI, 1: AVX2, 0: portable. The best that this processor has.
extern "C" int ternary_instructions() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw")) return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) return 1;
#endif
    return 0;
}

// y (tokens, rows) = x (tokens, columns) · Wᵀ + bias (rows) or nothing, all float32 and contiguous.
extern "C" void ternary_linear(const float* x, const uint8_t* codes, const uint16_t* scales, const float* bias, float* y,
                               int64_t tokens, int64_t rows, int64_t columns, int64_t group, int64_t groups,
                               int64_t steps, int threads, int instructions) {
    const Matrix m{codes, scales, rows, columns, group, groups, steps};
    const int64_t padded = groups * steps * STEP, tiles = (rows + ROWS - 1) / ROWS;
    const std::unique_ptr<int8_t[]> rounded(new int8_t[tokens * padded]);
    const std::unique_ptr<int32_t[]> sums(new int32_t[tokens * groups]);
    const std::unique_ptr<float[]> step(new float[tokens]);
    // Two regions, the first for prompts only: each ends in a barrier, and one token is rounded sooner than it is passed.
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && tokens > 1)
    for (int64_t n = 0; n < tokens; ++n)
        step[n] = round_token(x + n * columns, m, rounded.get() + n * padded, sums.get() + n * groups);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t width = std::min<int64_t>(ROWS, rows - tile * ROWS);
        for (int64_t first = 0; first < tokens; first += BATCH) {
            const int count = static_cast<int>(std::min<int64_t>(BATCH, tokens - first));
            Activations batch[BATCH];
            for (int n = 0; n < count; ++n)
                batch[n] = {rounded.get() + (first + n) * padded, sums.get() + (first + n) * groups};
            alignas(64) float out[BATCH][ROWS];
            // A full batch unpacks the codes once for four tokens; what is left goes one by one.
            if (count == BATCH) tile_of<BATCH>(instructions, m, tile, batch, out);
            else for (int n = 0; n < count; ++n) tile_of<1>(instructions, m, tile, batch + n, out + n);
            for (int n = 0; n < count; ++n)
                for (int64_t r = 0; r < width; ++r) {
                    const float value = out[n][r] * step[first + n];
                    y[(first + n) * rows + tile * ROWS + r] = bias ? value + bias[tile * ROWS + r] : value;
                }
        }
    }
}

#include "rows.cpp"
