/*
 * Owns: the process that keeps known values in vector and x87 state for a long time and counts when they come back changed.
 * Invariants:
 *   V1  this is the only object that may hold vector instructions (L2), and it has them in inline assembly only.
 *   V2  the values stay in the registers over one whole round (context switches, pauses and suspends included): they are compared by
 *       storing them, never by loading them again.
 * Why apart: under emulation vector state was seen to go wrong with no move going on; it must be told apart from wrong memory.
 */
#include "load.h"

#include <cpuid.h>
#include <time.h>

#define ROUND_SLEEPS 20u
#define SLEEP_NS 50000000 /* a round of a second: preempted, paused and suspended with the values in the registers */
#define SYSCALL_NANOSLEEP 35

struct vector_state {
    unsigned char lanes[16][32];
    uint32_t mxcsr;
    uint16_t control;
} __attribute__((aligned(64)));

#define FOR_ALL(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define LOAD_XMM(n) "movdqu " #n "*32(%[from]), %%xmm" #n "\n\t"
#define SAVE_XMM(n) "movdqu %%xmm" #n ", " #n "*32(%[to])\n\t"
#define LOAD_YMM(n) "vmovdqu " #n "*32(%[from]), %%ymm" #n "\n\t"
#define SAVE_YMM(n) "vmovdqu %%ymm" #n ", " #n "*32(%[to])\n\t"
#define CLOBBERS "memory", "cc", "rax", "rcx", "rdi", "rsi", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
                 "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

/*
 * Loads, sleeps without touching the registers, saves. One block: the compiler cannot put anything of its own between. A system call keeps
 * vector state, and sleeping takes no processor time from the other guests.
 */
#define HOLD(load_all, save_all)                                                                                                       \
    __asm__ volatile("fldcw %[control]\n\tldmxcsr %[mxcsr]\n\t" load_all                                                               \
                     "1:\n\tmov %[call], %%eax\n\tmov %[time], %%rdi\n\txor %%esi, %%esi\n\tsyscall\n\tdec %[turns]\n\tjnz 1b\n\t"      \
                     save_all "stmxcsr %[mxcsr_out]\n\tfnstcw %[control_out]\n\t"                                                  \
                     : [turns] "+r"(turns), [mxcsr_out] "=m"(out->mxcsr), [control_out] "=m"(out->control)                             \
                     : [from] "r"(in), [to] "r"(out), [mxcsr] "m"(in->mxcsr), [control] "m"(in->control), [time] "r"(&sleep),    \
                       [call] "i"(SYSCALL_NANOSLEEP)                                                                               \
                     : CLOBBERS)

static void hold(const struct vector_state *in, struct vector_state *out, int avx)
{
    static const struct timespec sleep = {.tv_nsec = SLEEP_NS};
    uint64_t turns = ROUND_SLEEPS;

    if (avx)
        HOLD(FOR_ALL(LOAD_YMM), FOR_ALL(SAVE_YMM));
    else
        HOLD(FOR_ALL(LOAD_XMM), FOR_ALL(SAVE_XMM));
}

static int avx_usable(void)
{
    unsigned int a, b, c, d, low, high;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 6) == 6;
}

_Noreturn void run_vector(uint64_t id, size_t pages)
{
    static struct vector_state in, out;
    int avx = avx_usable();
    uint64_t state = id;

    (void)pages;
    say("VECTOR state=%s\n", avx ? "ymm" : "xmm");
    for (;;) {
        unsigned int bad = 0;

        for (unsigned int n = 0; n < 16; n++)
            for (unsigned int i = 0; i < 32; i++)
                in.lanes[n][i] = (unsigned char)next_random(&state, 256);
        /* Rounding mode and masks: all exceptions masked, the rounding differs from the default. */
        in.mxcsr = 0x1f80 | (uint32_t)next_random(&state, 4) << 13;
        in.control = (uint16_t)(0x37f | next_random(&state, 4) << 10);
        hold(&in, &out, avx);
        for (unsigned int n = 0; n < 16; n++)
            for (unsigned int i = 0; i < (avx ? 32u : 16u); i++)
                bad += in.lanes[n][i] != out.lanes[n][i];
        bad += in.mxcsr != out.mxcsr;
        bad += in.control != out.control;
        if (bad) {
            load.slot->fpu_bad++;
            say("VECTOR bad_bytes=%u t_ns=%llu\n", bad, (unsigned long long)clock_boot_ns());
        }
        load.slot->passes++;
    }
}
