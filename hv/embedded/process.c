/*
 * process.c - facts about the process and thread that call: its number, and how far its stack reaches.
 *
 * Owns: the remembered number; for each thread the end of its stack.
 * Invariants:
 *  I1 the number is right in a child, too: fork() forgets it there;
 *  I2 what emb_own_stack() says yes to is memory of the caller's, mapped and writable until it returns: it lies between the
 *     frame of the function that asks and the end of the stack that this frame is on.
 * Lock order: none.
 * Why: a guest's kernel makes hypercalls with lists on its stack, some of them while every CPU stands still.  Each system call more to learn
 * who we are, and to read a few words that cannot be unreadable, is time in which the guest stands still.
 * Cost: after the first call of a thread a load and two comparisons.
 */
#include <pthread.h>
#include <unistd.h>

#include "emb_priv.h"

static _Atomic int32_t known_pid;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void forget(void)
{
    known_pid = 0;
}

static void at_fork(void)
{
    int rc = pthread_atfork(NULL, NULL, forget);        /* I1 */
    ASSERT_CMP(rc, ==, 0);
}

int32_t emb_pid(void)
{
    int32_t pid = known_pid;
    if (pid == 0) {
        (void)pthread_once(&once, at_fork);
        known_pid = pid = getpid();
    }
    return pid;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
/* A guest may name what is no object: the host answers that, a sanitizer would take it for our own mistake. */
bool emb_own_stack(uint64_t from, size_t bytes)
{
    (void)from;
    (void)bytes;
    return false;
}
#else
static _Thread_local uintptr_t stack_base, stack_end;

static void find_stack(void)
{
    pthread_attr_t attr;
    void *base;
    size_t size;
    stack_base = stack_end = 1;                         /* unknown: no address is within */
    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        if (pthread_attr_getstack(&attr, &base, &size) == 0) {
            stack_base = (uintptr_t)base;
            stack_end = (uintptr_t)base + size;
        }
        (void)pthread_attr_destroy(&attr);
    }
}

bool emb_own_stack(uint64_t from, size_t bytes)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    if (stack_end == 0) {
        find_stack();
    }
    return here >= stack_base && here < stack_end && from >= here && from < stack_end && bytes <= stack_end - from;     /* I2 */
}
#endif
