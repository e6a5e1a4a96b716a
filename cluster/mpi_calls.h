/* What cluster/mpi.c asks of the module that calls Open MPI (mpi_module.c): plain types, so that
 * nothing else sees mpi.h. Results are 0 or Open MPI's (PMIx', where said) code. */
#pragma once

#include <stddef.h>

#define LH_MPI_MODULE "longhaul-mpi.so" /* beside the program, or in ../lib/longhaul of it */
#define LH_MPI_SYMBOL "lh_mpi_calls"

struct lh_mpi_calls {
    size_t size; /* of this struct: a module of another build is refused */
    /* PMIx, mpirun's side of the start, which waits for nobody. enter: who this is; it says so to
     * all who ask. */
    int (*enter)(int *rank, int *size);
    int (*host)(int rank, char *out, size_t size);
    int (*ask)(int rank);     /* whether a rank has entered; the answer may take a while */
    int (*arrived)(int rank); /* 1 yes, 0 no answer yet, -1 no: ask again */
    void (*abort)(int status);
    const char *(*pmix_text)(int code);
    /* MPI */
    int (*init)(void); /* waits for all ranks */
    void (*finalize)(void);
    int (*all_gather)(const void *mine, int bytes, void *all, void **request);
    int (*broadcast)(void *data, int bytes, void **request);
    int (*send)(const void *data, int bytes, int to, int tag, void **request);
    int (*test)(void **request, int *done);                              /* releases it when done */
    int (*probe)(int only, int *there, int *from, int *tag, int *bytes); /* only: a tag; -1: any */
    int (*recv)(void *data, int bytes, int from, int tag, void **request);
    void (*text)(int code, char *out, size_t size);
};
