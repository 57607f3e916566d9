/*
 * compiler.h - the one place where compiler extensions are named.
 *
 * Owns: attribute spellings for gcc and clang.  Everything else in the tree is
 * plain C11; a port to another compiler starts and ends here (and in arch/).
 */
#ifndef FRAMESHIFT_COMPILER_H
#define FRAMESHIFT_COMPILER_H

#define FS_MUST_CHECK      __attribute__((warn_unused_result))
#define FS_NORETURN        __attribute__((noreturn))
#define FS_PRINTF(f, a)    __attribute__((format(printf, f, a)))
#define FS_UNUSED          __attribute__((unused))
#define FS_COLD            __attribute__((cold))
#define FS_NOINLINE        __attribute__((noinline))
#define FS_ALWAYS_INLINE   __attribute__((always_inline))
#define FS_ALIGNED(n)      __attribute__((aligned(n)))

#define fs_likely(x)       __builtin_expect(!!(x), 1)
#define fs_unlikely(x)     __builtin_expect(!!(x), 0)

/* pre: x != 0 for the two scans */
#define fs_ctz64(x)        ((unsigned)__builtin_ctzll(x))
#define fs_clz64(x)        ((unsigned)__builtin_clzll(x))
#define fs_prefetch_write(p) __builtin_prefetch((p), 1, 3)

#define FS_ARRAY_SIZE(a)   (sizeof(a) / sizeof((a)[0]))
#define FS_CONTAINER_OF(p, type, member) \
    ((type *)(void *)((char *)(p) - offsetof(type, member)))

#endif
