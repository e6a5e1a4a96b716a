/* Envelopes and bodies: bytes of the first frames of a message, and back. What arrives here is
 * foreign: every length is checked before memory is touched, and decoding an envelope allocates
 * nothing. */
#pragma once

#include "proto/control.pb-c.h"
#include "proto/envelope.pb-c.h"

#include <stddef.h>
#include <stdint.h>

#define LH_WIRE_PROTOCOL     1
#define LH_WIRE_ENVELOPE_MAX 160        /* bytes of an encoded envelope */
#define LH_WIRE_BODY_MAX     (4u << 20) /* bytes of a control body of the scheduler */
#define LH_WIRE_SMALL_MAX    (8u << 10) /* bytes of a control body of a role */
#define LH_WIRE_LATEST       UINT64_MAX /* step of a pull: whatever version there is */
#define LH_WIRE_PIECE        (1u << 18) /* floats of one message, 1 MB (facts: larger collapse) */

struct lh_envelope {
    uint32_t protocol, kind, node, level, index, epoch;
    uint64_t job, step, first, count, request;
};

/* Encodes; protocol is filled in when 0. `out` must hold LH_WIRE_ENVELOPE_MAX bytes. Returns the
 * number of bytes. Allocates nothing. */
size_t lh_wire_encode(const struct lh_envelope *env, unsigned char out[LH_WIRE_ENVELOPE_MAX]);

/* Decodes n untrusted bytes. Errors: LH_EPROTO (too long, broken, unknown kind); LH_EMISMATCH for
 * another protocol version, *out is then filled in all the same. Allocates nothing, any thread. */
int lh_wire_decode(const void *bytes, size_t n, struct lh_envelope *out);

/* A body as fresh bytes (lh_mem_free). Errors: LH_ENOMEM; LH_ERANGE beyond LH_WIRE_BODY_MAX. */
int lh_wire_pack(const ProtobufCMessage *body, void **out, size_t *n);
/* A body of type `type` from n untrusted bytes; release with lh_wire_free. Errors: LH_EPROTO,
 * LH_ENOMEM. */
int lh_wire_unpack(ProtobufCMessage **out, const ProtobufCMessageDescriptor *type,
                   const void *bytes, size_t n);
void lh_wire_free(ProtobufCMessage **body); /* NULL content allowed */

const char *lh_wire_kind_name(uint32_t kind); /* "PUSH"; "unknown" */
