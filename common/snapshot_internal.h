/* What writing and reading of snapshots share. */
#pragma once

#include "common/snapshot.h"

#define LH_SNAPSHOT_FORMAT     "longhaul-snapshot"
#define LH_SNAPSHOT_VERSION    1
#define LH_SNAPSHOT_MANIFEST   "manifest.json"
#define LH_SNAPSHOT_WEIGHTS    "weights.safetensors"
#define LH_SNAPSHOT_CONFIG     "config.yaml"
#define LH_SNAPSHOT_EVALUATION "evaluation.json"
#define LH_MANIFEST_SELF       "manifest_xxh3_64"
#define LH_TARGET_PREFIX       "target."
#define LH_SNAPSHOT_TABLE      "table-%s.safetensors"

#define LH_HEX 16 /* digits of a 64-bit number */

void lh_snapshot_hex(char out[LH_HEX + 1], uint64_t x);
/* Puts the checksum of the text, its own digits taken as zeros, where the digits are. */
void lh_snapshot_seal(char *manifest);
bool lh_snapshot_sealed(char *manifest, size_t n);
