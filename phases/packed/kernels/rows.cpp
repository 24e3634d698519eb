// y = x Wᵀ for W as the file stores it: rows of int8 codes, a float16 scale for every group of a row. Activations stay
// float32: codes become float in registers and sums are fused, so only the order of a sum differs from F.linear's.
//
// A part of ternary.cpp, which includes it. One row at a time: a single stream from memory, which is what a matrix
// that is read once per token runs at; four rows side by side, for the same sums, took twice as long (measured).
// Every token and row has sums of its own, in one order: bits do not depend on batch or threads.

#if defined(__x86_64__)

namespace {

constexpr int HEAD_BATCH = 4;  // tokens whose activations stay in the first cache beside the codes

struct Rows {
    const int8_t* codes;     // [rows][columns]
    const uint16_t* scales;  // [rows][groups], float16; one for all where the stride is 0
    int64_t rows, columns, group, groups, stride;
};

// Each `row_*` writes y[n][row] = Σ_g scale · Σ_i code · x of N tokens; `x` is [N][columns], `y` [N][rows].

template <int N>
__attribute__((target("avx2,fma,f16c"))) void row_avx2(const Rows& m, int64_t row, const float* x, float* y) {
    const int8_t* codes = m.codes + row * m.columns;
    __m256 total[N];
    for (int n = 0; n < N; ++n) total[n] = _mm256_setzero_ps();
    for (int64_t g = 0; g < m.groups; ++g) {
        __m256 sum[N];
        for (int n = 0; n < N; ++n) sum[n] = _mm256_setzero_ps();
        int64_t i = g * m.group;
        const int64_t end = std::min(i + m.group, m.columns);
        for (; i + 8 <= end; i += 8) {
            const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i));
            const __m256 code = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
            for (int n = 0; n < N; ++n)
                sum[n] = _mm256_fmadd_ps(code, _mm256_loadu_ps(x + n * m.columns + i), sum[n]);
        }
        if (i < end) {  // zeros where the group has ended
            int64_t last = 0;
            std::memcpy(&last, codes + i, end - i);
            const __m256 code = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(last)));
            const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(end - i)), lane);
            for (int n = 0; n < N; ++n)
                sum[n] = _mm256_fmadd_ps(code, _mm256_maskload_ps(x + n * m.columns + i, mask), sum[n]);
        }
        const __m256 scale = _mm256_set1_ps(_cvtsh_ss(m.scales[row * m.stride + g]));
        for (int n = 0; n < N; ++n) total[n] = _mm256_fmadd_ps(sum[n], scale, total[n]);
    }
    for (int n = 0; n < N; ++n) {
        const __m128 four = _mm_add_ps(_mm256_castps256_ps128(total[n]), _mm256_extractf128_ps(total[n], 1));
        const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        y[n * m.rows + row] = _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }
}

template <int N>
__attribute__((target("avx512f,f16c"))) void row_avx512(const Rows& m, int64_t row, const float* x, float* y) {
    const int8_t* codes = m.codes + row * m.columns;
    __m512 total[N];
    for (int n = 0; n < N; ++n) total[n] = _mm512_setzero_ps();
    for (int64_t g = 0; g < m.groups; ++g) {
        __m512 sum[N];
        for (int n = 0; n < N; ++n) sum[n] = _mm512_setzero_ps();
        int64_t i = g * m.group;
        const int64_t end = std::min(i + m.group, m.columns);
        for (; i + 16 <= end; i += 16) {
            const __m128i sixteen = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i));
            const __m512 code = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sixteen));
            for (int n = 0; n < N; ++n)
                sum[n] = _mm512_fmadd_ps(code, _mm512_loadu_ps(x + n * m.columns + i), sum[n]);
        }
        if (i < end) {
            __m128i last = _mm_setzero_si128();
            std::memcpy(&last, codes + i, end - i);
            const __m512 code = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(last));
            const __mmask16 mask = static_cast<__mmask16>((1u << (end - i)) - 1);
            for (int n = 0; n < N; ++n)
                sum[n] = _mm512_fmadd_ps(code, _mm512_maskz_loadu_ps(mask, x + n * m.columns + i), sum[n]);
        }
        const __m512 scale = _mm512_set1_ps(_cvtsh_ss(m.scales[row * m.stride + g]));
        for (int n = 0; n < N; ++n) total[n] = _mm512_fmadd_ps(sum[n], scale, total[n]);
    }
    for (int n = 0; n < N; ++n) y[n * m.rows + row] = _mm512_reduce_add_ps(total[n]);
}

template <int N>
void row_of(int instructions, const Rows& m, int64_t row, const float* x, float* y) {
    instructions == 2 ? row_avx512<N>(m, row, x, y) : row_avx2<N>(m, row, x, y);
}

}  // namespace

// y (tokens, rows) = x (tokens, columns) · Wᵀ, float32 and contiguous. Instructions as ternary_instructions() has them,
// not 0: there, unpacking is as fast.
extern "C" void rows_linear(const float* x, const int8_t* codes, const uint16_t* scales, float* y, int64_t tokens,
                            int64_t rows, int64_t columns, int64_t group, int64_t groups, int64_t stride, int threads,
                            int instructions) {
    const Rows m{codes, scales, rows, columns, group, groups, stride};
    constexpr decltype(&row_of<1>) batches[HEAD_BATCH] = {row_of<1>, row_of<2>, row_of<3>, row_of<4>};
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t n = 0; n < tokens; n += HEAD_BATCH)
            batches[std::min<int64_t>(HEAD_BATCH, tokens - n) - 1](instructions, m, row, x + n * columns, y + n * rows);
}

#endif
