/* The ranks of a job that mpirun started: who they are, and how bytes get from one to another. Open
 * MPI itself is called by a module (mpi_module.c) that is loaded only in such a rank, so that no
 * other start of the program pays for it and it runs where Open MPI is not installed.
 *
 * Nothing here waits without a bound, and nothing spins: Open MPI's own blocking calls do both. Any
 * thread may call, but only one at a time may receive messages of a kind. Errors: LH_EPEER with
 * Open MPI's text. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether mpirun (or srun --mpi=pmix) started this process. */
bool lh_mpi_launched(void);

struct lh_mpi;

/* Meets the other ranks, wherever in their start they are: at most `patience` seconds; a line every
 * few seconds says which rank on which host is awaited. *rank is known also after a failure, but
 * not where there is no mpirun to tell. Errors: LH_ETIMEDOUT naming who is missing, mpirun is then
 * told to end all; LH_ENOENT without the module or Open MPI; LH_ECANCELED when `interrupted`. */
int lh_mpi_open(struct lh_mpi **out, double patience, bool (*interrupted)(void), int *rank);
int lh_mpi_size(const struct lh_mpi *m);
/* Where mpirun put a rank, before any word from it; "?" if unknown. */
const char *lh_mpi_host(const struct lh_mpi *m, int rank);
/* Whether mpirun lets the others live when a rank dies (--enable-recovery). */
bool lh_mpi_recovers(const struct lh_mpi *m);

/* --- collectives: every rank calls them in the same order --------------------------------------
 * LH_ETIMEDOUT after `patience` seconds: a rank has died; nothing but lh_mpi_close may follow. */
int lh_mpi_all_gather(struct lh_mpi *m, const void *mine, size_t bytes, void *all, double patience);
int lh_mpi_broadcast(struct lh_mpi *m, void *data, size_t bytes, double patience); /* rank 0's */

/* --- messages between two ranks, of a kind >= 0; those of one kind arrive in order --------------
 */
#define LH_MPI_BYTES_MAX  ((size_t)1 << 30) /* of a message */
#define LH_MPI_POSTED_MAX 1024              /* of a posted one */

struct lh_mpi_sending; /* one message on its way */
/* `data` must stay as it is until it has gone. */
int lh_mpi_send(struct lh_mpi *m, int to, int kind, const void *data, size_t bytes,
                struct lh_mpi_sending **out);
/* Whether it has gone; it is then released and *s is NULL. NULL content: true. */
bool lh_mpi_sent(struct lh_mpi *m, struct lh_mpi_sending **s);
/* Copies `data`, and forgets it. LH_AGAIN: too many are on their way. */
int lh_mpi_post(struct lh_mpi *m, int to, int kind, const void *data, size_t bytes);
/* The next message that has come, from anybody, of kind `only` or of any; LH_AGAIN if there is
 * none. It must be received. */
#define LH_MPI_ANY_KIND (-1)
int lh_mpi_next(struct lh_mpi *m, int only, int *from, int *kind, size_t *bytes);
int lh_mpi_recv(struct lh_mpi *m, int from, int kind, void *data, size_t bytes);

/* Leaves. status 0: with the others. Otherwise mpirun is told to end all ranks with this exit
 * status, where it does so (lh_mpi_recovers); the caller should exit. `lost`: somebody has died, so
 * nobody is waited for. */
void lh_mpi_close(struct lh_mpi **m, int status, bool lost);
