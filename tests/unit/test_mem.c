#include "tests/testkit.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>

static void alloc_gives_zeroed_counted_memory(void **state)
{
    (void)state;
    uint64_t before = lh_mem_count();
    unsigned char *p;
    assert_ok(lh_mem_alloc((void **)&p, 100, 1, "t"));
    for (int i = 0; i < 100; i++)
        assert_int_equal(p[i], 0);
    assert_int_equal(lh_mem_count(), before + 1);
    lh_mem_free(p);
}

static void alloc_aligned_is_on_a_cache_line(void **state)
{
    (void)state;
    for (size_t n = 0; n < 200; n += 33) {
        void *p;
        assert_ok(lh_mem_alloc_aligned(&p, n, 1, "t"));
        assert_int_equal((uintptr_t)p % 64, 0);
        lh_mem_free(p);
    }
}

static void alloc_overflow_is_refused(void **state)
{
    (void)state;
    void *p = NULL;
    assert_err(lh_mem_alloc(&p, SIZE_MAX, 16, "big"), LH_ENOMEM, "big");
    assert_err(lh_mem_alloc_aligned(&p, SIZE_MAX / 2, 3, "big"), LH_ENOMEM, "big");
    assert_err(lh_mem_realloc(&p, SIZE_MAX, 2, "big"), LH_ENOMEM, "big");
    assert_null(p);
}

static void fail_at_fails_the_nth_once(void **state)
{
    (void)state;
    void *a, *b = NULL, *c;
    lh_mem_fail_at(2);
    assert_ok(lh_mem_alloc(&a, 1, 1, "a"));
    assert_err(lh_mem_alloc(&b, 1, 1, "b"), LH_ENOMEM, "b: out of memory");
    assert_null(b);
    assert_ok(lh_mem_alloc(&c, 1, 1, "c"));
    lh_mem_free(a);
    lh_mem_free(c);
}

static void grow_keeps_contents(void **state)
{
    (void)state;
    int *p = NULL;
    size_t cap = 0;
    for (int i = 0; i < 1000; i++) {
        assert_ok(LH_GROW(&p, &cap, (size_t)i + 1, "t"));
        p[i] = i;
    }
    for (int i = 0; i < 1000; i++)
        assert_int_equal(p[i], i);
    lh_mem_free(p);
}

static void printf_builds_a_string(void **state)
{
    (void)state;
    char *s;
    assert_ok(lh_mem_printf(&s, "%s-%d", "x", 7));
    assert_string_equal(s, "x-7");
    lh_mem_free(s);
}

static void resident_is_known(void **state)
{
    (void)state;
    assert_true(lh_mem_resident() > 0);
    assert_true(lh_mem_resident_peak() >= lh_mem_resident() / 2);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* their malloc is another */
enum { FRAMES = 48, FRAME = 1 << 20 };

/* As a connection does: one thread takes memory and fills it, another frees it. */
static void *fill_frames(void *arg)
{
    void **frames = arg;
    for (int i = 0; i < FRAMES; i++) {
        assert_ok(lh_mem_alloc_aligned(&frames[i], FRAME, 1, "t"));
        memset(frames[i], 1, FRAME);
    }
    return NULL;
}

static long faults(void)
{
    struct rusage use;
    assert_int_equal(getrusage(RUSAGE_SELF, &use), 0);
    return use.ru_minflt;
}

static void keep_lets_freed_memory_be_used_again_without_page_faults(void **state)
{
    (void)state;
    void *frames[FRAMES];
    long began = 0;
    lh_mem_keep();
    for (int round = 0; round < 3; round++) {
        pthread_t thread;
        began = faults();
        assert_int_equal(pthread_create(&thread, NULL, fill_frames, frames), 0);
        pthread_join(thread, NULL);
        for (int i = 0; i < FRAMES; i++)
            lh_mem_free(frames[i]);
    }
    assert_true(faults() - began < FRAMES * (FRAME / 4096) / 8);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(alloc_gives_zeroed_counted_memory),
        kit_test(alloc_aligned_is_on_a_cache_line),
        kit_test(alloc_overflow_is_refused),
        kit_test(fail_at_fails_the_nth_once),
        kit_test(grow_keeps_contents),
        kit_test(printf_builds_a_string),
        kit_test(resident_is_known),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        kit_test(keep_lets_freed_memory_be_used_again_without_page_faults),
#endif
    };
    return cmocka_run_group_tests_name("mem", tests, NULL, NULL);
}
