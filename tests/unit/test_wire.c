#include "common/wire.h"

#include "tests/testkit.h"

#include "common/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct lh_envelope sample = {.kind = LH__KIND__KIND_PUSH,
                                          .node = 7,
                                          .level = 3,
                                          .index = 5,
                                          .epoch = 2,
                                          .job = 0x0123456789abcdef,
                                          .step = 123456789012,
                                          .first = 1 << 20,
                                          .count = LH_WIRE_PIECE,
                                          .request = 99};

static void envelope_encoded_and_decoded_is_the_same(void **state)
{
    (void)state;
    unsigned char bytes[LH_WIRE_ENVELOPE_MAX];
    struct lh_envelope got;
    size_t n = lh_wire_encode(&sample, bytes);
    assert_true(n > 0 && n <= sizeof bytes);
    assert_ok(lh_wire_decode(bytes, n, &got));
    assert_int_equal(got.protocol, LH_WIRE_PROTOCOL);
    struct lh_envelope want = sample;
    want.protocol = LH_WIRE_PROTOCOL;
    assert_memory_equal(&got, &want, sizeof want);
}

static void envelope_of_largest_values_fits(void **state)
{
    (void)state;
    unsigned char bytes[LH_WIRE_ENVELOPE_MAX];
    struct lh_envelope e, got;
    memset(&e, 0xff, sizeof e);
    e.protocol = LH_WIRE_PROTOCOL;
    e.kind = LH__KIND__KIND_MOVED;
    assert_ok(lh_wire_decode(bytes, lh_wire_encode(&e, bytes), &got));
    assert_memory_equal(&got, &e, sizeof e);
}

static void envelope_truncated_anywhere_is_refused_or_another_but_never_read_beyond(void **state)
{
    (void)state;
    unsigned char bytes[LH_WIRE_ENVELOPE_MAX];
    size_t n = lh_wire_encode(&sample, bytes);
    for (size_t cut = 0; cut < n; cut++) {
        struct lh_envelope got;
        unsigned char *exact = malloc(cut ? cut : 1); /* the sanitizer watches its end */
        memcpy(exact, bytes, cut);
        int rc = lh_wire_decode(exact, cut, &got);
        if (rc == 0)
            assert_true(got.kind == sample.kind && got.job == sample.job);
        free(exact);
    }
}

static void envelope_of_random_bytes_never_crashes_nor_allocates(void **state)
{
    (void)state;
    struct lh_rng_at at = {.seed = 4};
    unsigned refused = 0;
    uint64_t before = lh_mem_count();
    for (uint64_t i = 0; i < 20000; i++) {
        unsigned char bytes[LH_WIRE_ENVELOPE_MAX + 8];
        struct lh_envelope got;
        size_t n = lh_rng_below(&at, i, sizeof bytes);
        at.part = 1;
        if (i % 2) { /* mutate a good one, or all random */
            n = lh_wire_encode(&sample, bytes);
            bytes[lh_rng_below(&at, 2 * i, n)] ^=
                (unsigned char)(1 + lh_rng_below(&at, 2 * i + 1, 255));
        } else {
            for (size_t k = 0; k < n; k++)
                bytes[k] = (unsigned char)lh_rng_u32(&at, i * 256 + k);
        }
        at.part = 0;
        refused += lh_wire_decode(bytes, n, &got) != 0;
    }
    assert_true(refused > 5000);
    assert_int_equal(lh_mem_count(), before);
}

static void envelope_of_another_protocol_says_so_and_is_filled_in(void **state)
{
    (void)state;
    unsigned char bytes[LH_WIRE_ENVELOPE_MAX];
    struct lh_envelope e = sample, got;
    e.protocol = 77;
    e.kind = LH__KIND__KIND_HELLO;
    assert_err(lh_wire_decode(bytes, lh_wire_encode(&e, bytes), &got), LH_EMISMATCH, "protocol 77");
    assert_int_equal(got.kind, LH__KIND__KIND_HELLO);
}

static void envelope_of_unknown_kind_or_size_is_refused(void **state)
{
    (void)state;
    unsigned char bytes[LH_WIRE_ENVELOPE_MAX + 1] = {0};
    struct lh_envelope e = sample, got;
    e.kind = 1000;
    assert_err(lh_wire_decode(bytes, lh_wire_encode(&e, bytes), &got), LH_EPROTO, "kind 1000");
    assert_err(lh_wire_decode(bytes, 0, &got), LH_EPROTO, "0 bytes");
    assert_err(lh_wire_decode(bytes, sizeof bytes, &got), LH_EPROTO, "161 bytes");
}

static void body_packed_and_unpacked_is_the_same(void **state)
{
    (void)state;
    Lh__Plan p = LH__PLAN__INIT, *got = NULL;
    char *servers[] = {(char[]){"tcp://a:1"}, (char[]){"tcp://b:2"}};
    uint64_t keep[] = {5, 10};
    void *bytes = NULL;
    size_t n;
    p.job = (char[]){"dataset: x"};
    p.servers = servers;
    p.n_servers = 2;
    p.keep = keep;
    p.n_keep = 2;
    assert_ok(lh_wire_pack(&p.base, &bytes, &n));
    assert_ok(lh_wire_unpack((ProtobufCMessage **)&got, &lh__plan__descriptor, bytes, n));
    assert_string_equal(got->job, p.job);
    assert_int_equal(got->n_servers, 2);
    assert_string_equal(got->servers[1], "tcp://b:2");
    assert_int_equal(got->keep[1], 10);
    lh_wire_free((ProtobufCMessage **)&got);
    lh_wire_free((ProtobufCMessage **)&got); /* NULL content */
    for (size_t cut = 1; cut < n; cut++)     /* a prefix may be a message, but nothing leaks */
        if (lh_wire_unpack((ProtobufCMessage **)&got, &lh__plan__descriptor, bytes, cut) == 0)
            lh_wire_free((ProtobufCMessage **)&got);
    lh_mem_free(bytes);
}

static void body_that_is_none_or_too_long_is_refused(void **state)
{
    (void)state;
    Lh__Plan *got = NULL;
    static const unsigned char junk[] = {0xff, 0xff, 0xff, 0xff, 0xff};
    assert_err(lh_wire_unpack((ProtobufCMessage **)&got, &lh__plan__descriptor, junk, sizeof junk),
               LH_EPROTO, "Plan");
    /* a string that claims more than there is: field 1, length 2^28 */
    static const unsigned char lying[] = {0x0a, 0x80, 0x80, 0x80, 0x80, 0x01, 'x'};
    assert_err(
        lh_wire_unpack((ProtobufCMessage **)&got, &lh__plan__descriptor, lying, sizeof lying),
        LH_EPROTO, "Plan");
    assert_err(lh_wire_unpack((ProtobufCMessage **)&got, &lh__plan__descriptor, junk,
                              LH_WIRE_BODY_MAX + 1),
               LH_EPROTO, "limit");
    /* of a role: fields that nobody knows, two bytes each, which take twenty times that */
    static unsigned char unknown[LH_WIRE_SMALL_MAX + 2];
    for (size_t i = 0; i < sizeof unknown; i += 2)
        unknown[i] = 0x78; /* field 15, varint 0 */
    assert_err(
        lh_wire_unpack((ProtobufCMessage **)&got, &lh__hello__descriptor, unknown, sizeof unknown),
        LH_EPROTO, "a Hello of 8194 bytes: the limit is 8192");
    assert_ok(lh_wire_unpack((ProtobufCMessage **)&got, &lh__hello__descriptor, unknown,
                             LH_WIRE_SMALL_MAX));
    lh_wire_free((ProtobufCMessage **)&got);
}

static void body_without_memory_is_reported_as_that(void **state)
{
    (void)state;
    Lh__Failure f = LH__FAILURE__INIT, *got = NULL;
    void *bytes = NULL;
    size_t n;
    int rc = LH_ENOMEM;
    f.text = (char[]){"sentence"};
    assert_ok(lh_wire_pack(&f.base, &bytes, &n));
    for (uint64_t nth = 1; rc == LH_ENOMEM && nth < 50; nth++) {
        lh_mem_fail_at(nth);
        rc = lh_wire_unpack((ProtobufCMessage **)&got, &lh__failure__descriptor, bytes, n);
        lh_mem_fail_at(0);
    }
    assert_ok(rc);
    lh_wire_free((ProtobufCMessage **)&got);
    lh_mem_free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(envelope_encoded_and_decoded_is_the_same),
        kit_test(envelope_of_largest_values_fits),
        kit_test(envelope_truncated_anywhere_is_refused_or_another_but_never_read_beyond),
        kit_test(envelope_of_random_bytes_never_crashes_nor_allocates),
        kit_test(envelope_of_another_protocol_says_so_and_is_filled_in),
        kit_test(envelope_of_unknown_kind_or_size_is_refused),
        kit_test(body_packed_and_unpacked_is_the_same),
        kit_test(body_that_is_none_or_too_long_is_refused),
        kit_test(body_without_memory_is_reported_as_that),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
