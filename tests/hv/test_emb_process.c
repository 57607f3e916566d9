/*
 * test_emb_process.c - what the embedded machine remembers of the process that calls it, and which addresses it trusts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "embedded/emb_priv.h"

static void a_child_has_a_number_of_its_own(void **state)
{
    (void)state;
    assert_int_equal(emb_pid(), getpid());
    assert_int_equal(emb_pid(), getpid());
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(emb_pid() == getpid() ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(emb_pid(), getpid());
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TRUSTED false                   /* there the host is asked about every address */
#else
#define TRUSTED true
#endif

static uint64_t address(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

/* Of a thread, or the main one: its own variables are, nothing else is. */
static void look(uint64_t others)
{
    uint64_t mine[4] = { 0 };
    void *heap = malloc(64);
    uint64_t here = address(mine);
    assert_non_null(heap);
    assert_int_equal(emb_own_stack(here, sizeof(mine)), TRUSTED);
    assert_false(emb_own_stack(address(heap), 8));
    assert_false(emb_own_stack(0, 8));
    assert_false(emb_own_stack(UINT64_MAX - 4, 8));
    assert_false(emb_own_stack(here, SIZE_MAX));                /* beyond its end, and around the address space */
    assert_false(emb_own_stack(here, SIZE_MAX - here + 1));
    assert_false(emb_own_stack(here, (size_t)1 << 40));
    assert_false(emb_own_stack(here - (1u << 20), 8));          /* further down than whoever asks */
    assert_false(others != 0 && emb_own_stack(others, 8));
    free(heap);
}

static void *thread_main(void *arg)
{
    look(address(arg));
    return NULL;
}

static void only_the_callers_own_stack_is_trusted(void **state)
{
    (void)state;
    uint64_t mine = 0;
    pthread_t t;
    look(0);
    assert_int_equal(pthread_create(&t, NULL, thread_main, &mine), 0);
    assert_int_equal(pthread_join(t, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_child_has_a_number_of_its_own), cmocka_unit_test(only_the_callers_own_stack_is_trusted) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
