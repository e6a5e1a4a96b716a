/* Dimension letters and the scalar type, used everywhere.
 *
 *   B  rows of a micro-batch (fixed by the config, never by the cluster)
 *   H  width of s_h, the session-level (high) state      L  width of s_l, the request-level (low)
 *   A  width of an action                                C  width of the CVAE's latent
 *   N  estimators (candidate actions) per state          K  micro-batches of a global batch
 *   I  ids of a state: what rows of embedding tables are looked up by
 *
 * All tensors are dense, row-major matrices [rows, cols] with no padding between rows.
 * A weight matrix is [out, in], as the safetensors files of other frameworks have it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Training runs in float. The same sources compiled with LH_REAL_IS_DOUBLE make the library that
 * the gradient checks run on. */
#ifdef LH_REAL_IS_DOUBLE
typedef double lh_real;
#else
typedef float lh_real;
#endif

struct lh_dims {
    uint32_t high, low, action; /* H, L, A */
    uint32_t classes;           /* distinct rewards if at most 32, else 0 */
    uint32_t ids;               /* I */
};
