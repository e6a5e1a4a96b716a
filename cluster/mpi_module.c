/* The module behind cluster/mpi_calls.h: each call is one of Open MPI or PMIx. It knows nothing of
 * longhaul. */
#include "cluster/mpi_calls.h"

#include <mpi.h>
#include <pmix.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HERE "longhaul.here" /* what a rank that has entered publishes */

enum answer { NONE, ARRIVED, NOT_YET };

static struct {
    pmix_proc_t self;
    atomic_int *answers; /* by rank */
    int size;
} job;

/* --- PMIx --------------------------------------------------------------------------------------
 */
static int publish(void)
{
    pmix_value_t yes = {.type = PMIX_BOOL, .data.flag = true};
    pmix_status_t s = PMIx_Put(PMIX_GLOBAL, HERE, &yes);
    return s == PMIX_SUCCESS ? PMIx_Commit() : s;
}

static int enter(int *rank, int *size)
{
    pmix_value_t *value = NULL;
    pmix_status_t s = PMIx_Init(&job.self, NULL, 0);
    if (s != PMIX_SUCCESS)
        return s;
    pmix_proc_t all = job.self;
    all.rank = PMIX_RANK_WILDCARD;
    s = PMIx_Get(&all, PMIX_JOB_SIZE, NULL, 0, &value);
    if (s != PMIX_SUCCESS)
        return s;
    job.size = (int)value->data.uint32;
    PMIX_VALUE_RELEASE(value);
    job.answers = calloc((size_t)job.size, sizeof *job.answers);
    if (!job.answers)
        return PMIX_ERR_NOMEM;
    *rank = (int)job.self.rank;
    *size = job.size;
    return publish();
}

static pmix_proc_t peer(int rank)
{
    pmix_proc_t p = job.self;
    p.rank = (pmix_rank_t)rank;
    return p;
}

static int host(int rank, char *out, size_t size)
{
    pmix_value_t *value = NULL;
    pmix_info_t known[1]; /* what mpirun told at the start; nobody is asked */
    bool yes = true;
    pmix_proc_t p = peer(rank);
    PMIX_INFO_LOAD(&known[0], PMIX_OPTIONAL, &yes, PMIX_BOOL);
    pmix_status_t s = PMIx_Get(&p, PMIX_HOSTNAME, known, 1, &value);
    if (s == PMIX_SUCCESS && value->type == PMIX_STRING)
        snprintf(out, size, "%s", value->data.string);
    if (s == PMIX_SUCCESS)
        PMIX_VALUE_RELEASE(value);
    return s;
}

/* In PMIx' own thread. */
static void take_answer(pmix_status_t s, pmix_value_t *value, void *rank)
{
    (void)value;
    atomic_store(&job.answers[(intptr_t)rank], s == PMIX_SUCCESS ? ARRIVED : NOT_YET);
}

static int ask(int rank)
{
    pmix_proc_t p = peer(rank);
    atomic_store(&job.answers[rank], NONE);
    pmix_status_t s = PMIx_Get_nb(&p, HERE, NULL, 0, take_answer, (void *)(intptr_t)rank);
    if (s == PMIX_OPERATION_SUCCEEDED)
        atomic_store(&job.answers[rank], ARRIVED);
    return s == PMIX_OPERATION_SUCCEEDED ? PMIX_SUCCESS : s;
}

static int arrived(int rank)
{
    int answer = atomic_load(&job.answers[rank]);
    return answer == ARRIVED ? 1 : answer == NOT_YET ? -1 : 0;
}

static void abort_all(int status)
{
    PMIx_Abort(status, "longhaul", NULL, 0);
}

static const char *pmix_text(int code)
{
    return PMIx_Error_string(code);
}

/* --- MPI ---------------------------------------------------------------------------------------
 */
static int init(void)
{
    int level = 0;
    int rc = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level);
    if (rc == MPI_SUCCESS)
        rc = MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    return rc == MPI_SUCCESS && level < MPI_THREAD_SERIALIZED ? MPI_ERR_OTHER : rc;
}

static void finalize(void)
{
    MPI_Finalize();
    PMIx_Finalize(NULL, 0);
    free(job.answers);
    job.answers = NULL;
}

static int begin(int rc, MPI_Request request, void **out)
{
    MPI_Request *kept = rc == MPI_SUCCESS ? malloc(sizeof *kept) : NULL;
    *out = kept;
    if (rc == MPI_SUCCESS && !kept)
        return MPI_ERR_NO_MEM;
    if (kept)
        *kept = request;
    return rc;
}

static int all_gather(const void *mine, int bytes, void *all, void **out)
{
    MPI_Request r = MPI_REQUEST_NULL;
    int rc = MPI_Iallgather(mine, bytes, MPI_BYTE, all, bytes, MPI_BYTE, MPI_COMM_WORLD, &r);
    return begin(rc, r, out);
}

static int broadcast(void *data, int bytes, void **out)
{
    MPI_Request r = MPI_REQUEST_NULL;
    int rc = MPI_Ibcast(data, bytes, MPI_BYTE, 0, MPI_COMM_WORLD, &r);
    return begin(rc, r, out);
}

static int send(const void *data, int bytes, int to, int tag, void **out)
{
    MPI_Request r = MPI_REQUEST_NULL;
    int rc = MPI_Isend(data, bytes, MPI_BYTE, to, tag, MPI_COMM_WORLD, &r);
    return begin(rc, r, out);
}

static int test(void **request, int *done)
{
    int rc = MPI_Test(*request, done, MPI_STATUS_IGNORE);
    if (rc != MPI_SUCCESS || *done) {
        free(*request);
        *request = NULL;
    }
    return rc;
}

static int probe(int only, int *there, int *from, int *tag, int *bytes)
{
    MPI_Status s;
    int rc = MPI_Iprobe(MPI_ANY_SOURCE, only < 0 ? MPI_ANY_TAG : only, MPI_COMM_WORLD, there, &s);
    if (rc != MPI_SUCCESS || !*there)
        return rc;
    *from = s.MPI_SOURCE;
    *tag = s.MPI_TAG;
    return MPI_Get_count(&s, MPI_BYTE, bytes);
}

static int recv(void *data, int bytes, int from, int tag, void **out)
{
    MPI_Request r = MPI_REQUEST_NULL;
    int rc = MPI_Irecv(data, bytes, MPI_BYTE, from, tag, MPI_COMM_WORLD, &r);
    return begin(rc, r, out);
}

static void text(int code, char *out, size_t size)
{
    char full[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    MPI_Error_string(code, full, &n);
    snprintf(out, size, "%s", full);
}

extern const struct lh_mpi_calls lh_mpi_calls;
const struct lh_mpi_calls lh_mpi_calls = {
    .size = sizeof lh_mpi_calls,
    .enter = enter,
    .host = host,
    .ask = ask,
    .arrived = arrived,
    .abort = abort_all,
    .pmix_text = pmix_text,
    .init = init,
    .finalize = finalize,
    .all_gather = all_gather,
    .broadcast = broadcast,
    .send = send,
    .test = test,
    .probe = probe,
    .recv = recv,
    .text = text,
};
