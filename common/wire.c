/* Envelopes and bodies of messages. Decoding an envelope runs on a few hundred bytes of stack, so
 * that a hostile one cannot make us allocate; bodies are bounded and go through common/mem.h. */
#include "common/wire.h"

#include "common/err.h"
#include "common/mem.h"

#include <string.h>

/* Room for protobuf-c's struct and for the unknown fields a newer peer may add. */
struct bump {
    size_t used;
    _Alignas(16) unsigned char bytes[1024];
};

static void *bump_alloc(void *ctx, size_t size)
{
    struct bump *b = ctx;
    size_t n = (size + 15) & ~(size_t)15;
    if (n < size || n > sizeof b->bytes - b->used)
        return NULL;
    void *p = b->bytes + b->used;
    b->used += n;
    return p;
}

static void bump_free(void *ctx, void *p)
{
    (void)ctx, (void)p;
}

/* ctx: a code, which becomes LH_ENOMEM when memory was what failed. */
static void *heap_alloc(void *ctx, size_t size)
{
    void *p = NULL;
    int rc = lh_mem_alloc(&p, 1, size, "message body");
    if (rc < 0)
        *(int *)ctx = rc;
    return rc < 0 ? NULL : p;
}

static void heap_free(void *ctx, void *p)
{
    (void)ctx;
    lh_mem_free(p);
}

size_t lh_wire_encode(const struct lh_envelope *env, unsigned char out[LH_WIRE_ENVELOPE_MAX])
{
    Lh__Envelope m = LH__ENVELOPE__INIT;
    m.protocol = env->protocol ? env->protocol : LH_WIRE_PROTOCOL;
    m.job = env->job;
    m.kind = (Lh__Kind)env->kind;
    m.node = env->node;
    m.step = env->step;
    m.level = env->level;
    m.index = env->index;
    m.first = env->first;
    m.count = env->count;
    m.request = env->request;
    m.epoch = env->epoch;
    return lh__envelope__pack(&m, out); /* 11 fields of at most 11 bytes: fits */
}

int lh_wire_decode(const void *bytes, size_t n, struct lh_envelope *out)
{
    if (n == 0 || n > LH_WIRE_ENVELOPE_MAX)
        return lh_err_set(LH_EPROTO, "an envelope of %zu bytes: expected 1 to %d", n,
                          LH_WIRE_ENVELOPE_MAX);
    struct bump b = {.used = 0};
    ProtobufCAllocator stack = {.alloc = bump_alloc, .free = bump_free, .allocator_data = &b};
    Lh__Envelope *m = lh__envelope__unpack(&stack, n, bytes);
    if (!m)
        return lh_err_set(LH_EPROTO, "an envelope of %zu bytes is not readable as one", n);
    *out = (struct lh_envelope){.protocol = m->protocol,
                                .kind = (uint32_t)m->kind,
                                .node = m->node,
                                .level = m->level,
                                .index = m->index,
                                .epoch = m->epoch,
                                .job = m->job,
                                .step = m->step,
                                .first = m->first,
                                .count = m->count,
                                .request = m->request};
    if (out->protocol != LH_WIRE_PROTOCOL)
        return lh_err_set(LH_EMISMATCH,
                          "the peer speaks protocol %u, this program speaks %d: run the same "
                          "release of longhaul everywhere",
                          out->protocol, LH_WIRE_PROTOCOL);
    if (out->kind == LH__KIND__KIND_NONE ||
        !protobuf_c_enum_descriptor_get_value(&lh__kind__descriptor, (int)out->kind))
        return lh_err_set(LH_EPROTO, "a message of unknown kind %u", out->kind);
    return 0;
}

int lh_wire_pack(const ProtobufCMessage *body, void **out, size_t *n)
{
    size_t size = protobuf_c_message_get_packed_size(body);
    if (size > LH_WIRE_BODY_MAX)
        return lh_err_set(LH_ERANGE, "a message body of %zu bytes: the limit is %u", size,
                          LH_WIRE_BODY_MAX);
    LH_TRY(lh_mem_alloc(out, 1, size, "message body"));
    *n = protobuf_c_message_pack(body, *out);
    return 0;
}

/* What roles say is a few strings and numbers; lists are the scheduler's. Unpacked, a body of many
 * small fields is some tens of times as large. */
static size_t most_bytes(const ProtobufCMessageDescriptor *type)
{
    return type == &lh__plan__descriptor || type == &lh__commit__descriptor ||
                   type == &lh__members__descriptor
               ? LH_WIRE_BODY_MAX
               : LH_WIRE_SMALL_MAX;
}

int lh_wire_unpack(ProtobufCMessage **out, const ProtobufCMessageDescriptor *type,
                   const void *bytes, size_t n)
{
    if (n > most_bytes(type))
        return lh_err_set(LH_EPROTO, "a %s of %zu bytes: the limit is %zu", type->short_name, n,
                          most_bytes(type));
    int failed = 0;
    ProtobufCAllocator heap = {.alloc = heap_alloc, .free = heap_free, .allocator_data = &failed};
    *out = protobuf_c_message_unpack(type, &heap, n, bytes);
    if (!*out && failed)
        return failed;
    if (!*out)
        return lh_err_set(LH_EPROTO, "a %s of %zu bytes is not readable as one", type->short_name,
                          n);
    return 0;
}

void lh_wire_free(ProtobufCMessage **body)
{
    if (!*body)
        return;
    ProtobufCAllocator heap = {.alloc = heap_alloc, .free = heap_free, .allocator_data = NULL};
    protobuf_c_message_free_unpacked(*body, &heap);
    *body = NULL;
}

const char *lh_wire_kind_name(uint32_t kind)
{
    const ProtobufCEnumValue *v =
        protobuf_c_enum_descriptor_get_value(&lh__kind__descriptor, (int)kind);
    return v ? v->name + strlen("KIND_") : "unknown";
}
