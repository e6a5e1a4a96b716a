/* common/wire: byte 0 says whether the rest is an envelope or which body. What passes is encoded
 * and decoded again. */
#include "common/wire.h"

#include "tests/fuzz/fuzzkit.h"

#include <string.h>

static void as_envelope(const uint8_t *data, size_t size)
{
    struct lh_envelope e = {0}, again = {0};
    unsigned char bytes[LH_WIRE_ENVELOPE_MAX];
    const uint64_t count = lh_mem_count();
    int rc = lh_wire_decode(data, size, &e);
    fuzzkit_require(lh_mem_count() == count, "decoding allocates nothing");
    if (!fuzzkit_passed(rc))
        return;
    size_t n = lh_wire_encode(&e, bytes);
    fuzzkit_require(n <= sizeof bytes, "an envelope has its size");
    fuzzkit_require(lh_wire_decode(bytes, n, &again) == 0 && again.kind == e.kind &&
                        again.first == e.first && again.count == e.count && again.step == e.step,
                    "what was encoded is the same");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const ProtobufCMessageDescriptor *const types[] = {
        &lh__hello__descriptor,  &lh__plan__descriptor,   &lh__failure__descriptor,
        &lh__commit__descriptor, &lh__phases__descriptor, NULL, /* an envelope */
        &lh__members__descriptor};
    enum { N = sizeof types / sizeof *types };
    ProtobufCMessage *body = NULL;
    void *packed = NULL;
    size_t n = 0;
    if (size == 0)
        return 0;
    lh_err_clear();
    const ProtobufCMessageDescriptor *type = types[data[0] % N];
    if (!type) {
        as_envelope(data + 1, size - 1);
        return 0;
    }
    if (!fuzzkit_passed(lh_wire_unpack(&body, type, data + 1, size - 1)))
        return 0;
    fuzzkit_require(lh_wire_pack(body, &packed, &n) == 0, "what was unpacked can be packed");
    lh_mem_free(packed);
    lh_wire_free(&body);
    return 0;
}
