/* What others wrote and is wrong: each becomes one line that names it, a documented exit status,
 * and nothing is lost, half written or left running. Details of each parser are tested beside it
 * (tests/unit, tests/fuzz); this is what users see. */
#include "tests/faultkit.h"

#include "common/rng.h"
#include "common/snapshot_internal.h"
#include "common/term.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

enum { FLIPS = 60 };

#define PART "data/train/day-0/part-000.lhp"

/* --- job and schema -----------------------------------------------------------------------------
 */
static void job_that_is_wrong_names_line_and_key(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"batch: 32", "bacth: 32", "job.yaml:6: train.bacth: unknown key|did you mean 'batch'"},
        {"seed:", "sede:", "job.yaml:3: sede: unknown key|did you mean 'seed'"},
        {"batch: 32", "batch: lots", "job.yaml:6: train.batch: 'lots'|whole number"},
        {"batch: 32", "batch: [32]", "job.yaml:6: train.batch"},
        {"batch: 32", "batch: -1", "job.yaml:6: train.batch"},
        {"batch: 32", "batch: 99999999999999999999", "job.yaml:6: train.batch"},
        {"{hidden: [8, 8], z_high: 4, z_low: 4}", "5", "job.yaml:4: network: expected a mapping"},
        {"hidden: [8, 8]", "hidden: [8, wide]", "job.yaml:4: network.hidden"},
        {"resact", "resat", "job.yaml:2: algorithm: 'resat'|resact"},
        {"dataset: data\n", "", "job.yaml: dataset is missing"},
        {"every: 10}", "every: 10", "job.yaml|not valid YAML"},
        {"seed: 3", "seed: 3\nseed: 4", "job.yaml:4: key 'seed' is already set on line 3"},
        {"seed: 3", "seed: *x", "job.yaml:3"},
        {"seed: 3", "seed: \x01", "job.yaml|not valid YAML"},
        {"{estimators: 2}", "{gamma: nan}", "job.yaml:5: objective.gamma"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        faultkit_passes("cp job.yaml good.yaml");
        faultkit_replace(kit_path("job.yaml"), cases[i].from, cases[i].to);
        faultkit_refuses(LH_ECONFIG, cases[i].says, "longhaul train job.yaml --dir new --quiet");
        faultkit_passes("mv good.yaml job.yaml");
    }
    faultkit_refuses(LH_ECONFIG, "--set train.bacth: unknown key|did you mean 'batch'",
                     "longhaul train job.yaml --dir new --quiet --set train.bacth=3");
    faultkit_refuses(LH_ENOENT, "none.yaml", "longhaul train none.yaml --dir new --quiet");
    faultkit_refuses(LH_EIO, "data: Is a directory", "longhaul train data --dir new --quiet");
}

static void schema_that_does_not_fit_the_log_says_where(void **state)
{
    (void)state;
    static const struct {
        int code;
        const char *from, *to, *says;
    } cases[] = {
        {LH_ECONFIG, "x: number", "x: nubmer", "schema.yaml:5: columns.x: 'nubmer'|number"},
        {LH_ECONFIG, "partition:", "partitions:", "schema.yaml:11: partitions|'partition'"},
        {LH_ECONFIG, "column: x", "column: xx", "schema.yaml:14: state_low|xx"},
        {LH_ECONFIG, "column: y}]", "column: y", "schema.yaml|not valid YAML"},
        {LH_ECONFIG, "  x: number", "  ix: {type: number, from: ex}\n  x: number", "schema.yaml"},
        {LH_ENOENT, "log.csv", "no.csv", "no.csv: no such file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        faultkit_passes("cp schema.yaml good.yaml");
        faultkit_replace(kit_path("schema.yaml"), cases[i].from, cases[i].to);
        faultkit_refuses(cases[i].code, cases[i].says,
                         "longhaul import schema.yaml --out new --quiet");
        faultkit_passes("mv good.yaml schema.yaml");
    }
    static const char import[] = "longhaul import schema.yaml --out new --quiet";
    faultkit_passes("cp log.csv good.csv && sed -i s/,x,/,xyz,/ log.csv");
    faultkit_refuses(LH_ECONFIG, "log.csv has no column 'x'|did you mean 'xyz'", import);
    faultkit_passes("tr , ';' <good.csv >log.csv");
    faultkit_refuses(LH_ECONFIG, "log.csv has no column 'u'", import);
    faultkit_passes("head -c 4000 /dev/urandom >log.csv");
    faultkit_refuses(LH_ECONFIG, "log.csv", import);
    faultkit_passes(": >log.csv");
    faultkit_refuses(LH_ECONFIG, "log.csv", import);
    faultkit_passes("gzip -c good.csv | head -c 300 >log.csv");
    faultkit_refuses(LH_EFORMAT, "log.csv: cannot read|is the file whole", import);
    /* bad rows are named one a line, then comes the sentence */
    faultkit_passes("cp good.csv log.csv && printf '\"5,9,1,1,F,1\\n' >>log.csv");
    struct faultkit_end end = faultkit_run("%s --set bad_rows.max=0", import);
    assert_int_equal(end.status, lh_err_exit_status(LH_EFORMAT));
    kit_assert_contains(end.said,
                        "longhaul: ./log.csv:162: a quote is opened and not closed (1 bad");
    free(end.said);
    assert_int_not_equal(access(kit_path("new"), F_OK), 0);
}

static void numbers_that_are_none_are_bad_rows(void **state)
{
    (void)state;
    static const char *const rows[] = {"5,900,nan,0,F,1",   "5,900,-inf,0,F,1", "5,900,1e999,0,F,1",
                                       "5,900,0,1e300,F,1", "5,900,0,0,F,NaN",  "5,900,x,0,F,1",
                                       "5,now,0,0,F,1"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        faultkit_passes("cp log.csv good.csv && echo '%s' >>log.csv", rows[i]);
        struct faultkit_end end = faultkit_run("longhaul import schema.yaml --out new --quiet");
        assert_int_equal(end.status, 0); /* one in 160 may be bad, and is named */
        kit_assert_contains(end.said, "bad row: ./log.csv:162: column '");
        free(end.said);
        faultkit_passes("longhaul inspect new --verify && rm -r new && mv good.csv log.csv");
    }
    faultkit_passes("sed -i '2,$s/^\\([^,]*,[^,]*\\),[^,]*/\\1,nan/' log.csv");
    struct faultkit_end end = faultkit_run("longhaul import schema.yaml --out new --quiet");
    assert_int_equal(end.status, lh_err_exit_status(LH_EFORMAT));
    kit_assert_contains(end.said, "log.csv");
    free(end.said);
    assert_int_not_equal(access(kit_path("new"), F_OK), 0);
}

/* --- datasets -----------------------------------------------------------------------------------
 */
static void restore_data(void)
{
    faultkit_passes("rm -rf data && cp -a kept data");
}

static void damaged_partition_is_refused_by_all_who_read_it(void **state)
{
    (void)state;
    faultkit_passes("cp -a data kept");
    static const char *const readers[] = {"longhaul train job.yaml --dir new --quiet",
                                          "longhaul inspect data --verify"};
    static const struct {
        long at;
        const char *says;
    } flips[] = {{1, PART "|not a partition"},
                 {8, PART "|version"},
                 {12, PART},
                 {40, PART "|header is damaged"},
                 {200, PART "|header is damaged"},
                 {1500, PART "|block 0 of column|damaged"}};
    for (size_t r = 0; r < 2; r++) {
        for (size_t i = 0; i < sizeof flips / sizeof *flips; i++) {
            faultkit_flip(kit_path(PART), flips[i].at);
            faultkit_refuses(LH_ECORRUPT, flips[i].says, "%s", readers[r]);
            restore_data();
        }
        faultkit_cut(kit_path(PART), 1500);
        faultkit_refuses(LH_EFORMAT, PART "|cut short|restore", "%s", readers[r]);
        faultkit_cut(kit_path(PART), 0);
        faultkit_refuses(LH_EFORMAT, PART "|not a partition", "%s", readers[r]);
        unlink(kit_path(PART));
        faultkit_refuses(LH_ENOENT, PART ": is missing; restore it", "%s", readers[r]);
        restore_data();
        faultkit_passes("cp data/test/day-0/part-001.lhp " PART);
        faultkit_refuses(LH_ECORRUPT, "part-000.lhp", "%s", readers[r]);
        restore_data();
    }
    /* the last column is read by nobody but those who look at all */
    faultkit_flip(kit_path(PART), -70);
    faultkit_refuses(LH_ECORRUPT, PART "|damaged", "longhaul inspect data --verify");
    restore_data();
    faultkit_passes("longhaul evaluate --snapshot snap --dataset data");
    faultkit_flip(kit_path("data/test/day-0/part-000.lhp"), 1500);
    faultkit_refuses(LH_ECORRUPT, "test/day-0/part-000.lhp|damaged",
                     "longhaul evaluate --snapshot snap --dataset data 2>all || { s=$?; "
                     "grep -v evaluating all >&2; rm all; exit $s; }");
}

/* A bit of any byte of any partition; each byte of one is tried in unit/test_partition.c. */
static void partition_with_any_bit_flipped_is_refused(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "data/train/day-0/part-000.lhp", "data/train/day-0/part-001.lhp",
        "data/validation/day-0/part-000.lhp", "data/test/day-0/part-001.lhp"};
    unsigned harmless = 0;
    for (unsigned i = 0; i < FLIPS; i++) {
        const char *part = parts[i % 4];
        size_t n;
        char *bytes = kit_read(kit_path(part), &n);
        const struct lh_rng_at at = {.seed = 7, .step = i};
        size_t byte = (size_t)lh_rng_below(&at, 0, n), bit = (size_t)lh_rng_below(&at, 1, 8);
        bytes[byte] = (char)(bytes[byte] ^ 1 << bit);
        kit_write_bytes(kit_path(part), bytes, n);
        struct faultkit_end end = faultkit_run("longhaul inspect data --verify");
        if (end.status == 0) { /* what fills a column up to the next */
            harmless++;
        } else {
            const char *newline = strchr(end.said, '\n');
            if (end.status != lh_err_exit_status(LH_ECORRUPT) || !strstr(end.said, part) ||
                !newline || newline[1])
                fail_msg("byte %zu of %s: status %d: %s", byte, part, end.status, end.said);
        }
        free(end.said);
        bytes[byte] = (char)(bytes[byte] ^ 1 << bit);
        kit_write_bytes(kit_path(part), bytes, n);
        free(bytes);
    }
    assert_true(harmless < FLIPS / 2);
    faultkit_passes("longhaul inspect data --verify");
}

static void damaged_manifest_is_refused(void **state)
{
    (void)state;
    faultkit_passes("cp -a data kept");
    static const char train[] = "longhaul train job.yaml --dir new --quiet";
    size_t n;
    free(kit_read(kit_path("data/manifest.json"), &n));
    for (size_t part = 0; part < 4; part++) {
        faultkit_cut(kit_path("data/manifest.json"), (long)(n * part / 4));
        faultkit_refuses(LH_EFORMAT, "data/manifest.json|import again", train);
        restore_data();
    }
    faultkit_replace(kit_path("data/manifest.json"), "day-0/part-000", "../../part-000");
    faultkit_refuses(LH_EFORMAT, "data/manifest.json", train);
    restore_data();
    faultkit_replace(kit_path("data/manifest.json"), "\"digest\":\t\"", "\"digest\":\t\"0");
    faultkit_refuses(LH_ECORRUPT, "data/manifest.json", train);
    restore_data();
    faultkit_passes("sed -i 's/\"rows\":.[0-9]*/\"rows\": 77/' data/manifest.json");
    faultkit_refuses(LH_EFORMAT, "data/manifest.json", train);
    restore_data();
    unlink(kit_path("data/manifest.json"));
    faultkit_refuses(LH_ENOENT, "data: not a dataset|longhaul import", train);
    faultkit_refuses(LH_ENOENT, "log.csv: not a dataset|longhaul import",
                     "longhaul inspect log.csv");
}

/* --- runs and their stores ----------------------------------------------------------------------
 */
static void damaged_run_is_refused_and_stays(void **state)
{
    (void)state;
    static const char *const users[] = {"longhaul export --dir run --out new",
                                        "longhaul train job.yaml --dir run --resume --quiet"};
    faultkit_passes("longhaul train job.yaml --dir half --stop-after 10 --quiet && rm -rf run && "
                    "cp -a half run");
    static const struct {
        const char *damage, *says;
    } cases[] = {
        {"head -c 50 half/run.json >run/run.json", "run/run.json: is not valid JSON"},
        {"echo '[]' >run/run.json", "run/run.json"},
        {"sed -i 's/\"last\":.10/\"last\": 11/' run/run.json", "run/run.json"},
        {"sed -i 's/\"servers\":.1/\"servers\": -1/' run/run.json", "run/run.json"},
        {"head -c 20000 /dev/urandom >run/store-0/data.mdb", "store-0/data.mdb"},
        {": >run/store-0/data.mdb", "store-0"},
        {"truncate -s 9000 run/store-0/data.mdb", "store-0/data.mdb"},
        {"rm -r run/store-0", "store-0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        faultkit_passes("%s", cases[i].damage);
        for (size_t u = 0; u < 2; u++) {
            struct faultkit_end end = faultkit_run("%s", users[u]);
            const char *newline = strchr(end.said, '\n');
            if ((end.status != 3 && end.status != 4) || !newline || newline[1] ||
                !strstr(end.said, cases[i].says))
                fail_msg("%s, %s: status %d: %s", cases[i].damage, users[u], end.status, end.said);
            free(end.said);
            assert_int_not_equal(access(kit_path("new"), F_OK), 0);
        }
        faultkit_passes("rm -rf run && cp -a half run");
    }
    faultkit_passes("longhaul train job.yaml --dir run --resume --quiet");
}

static void store_of_another_job_is_refused(void **state)
{
    (void)state;
    faultkit_passes("longhaul train job.yaml --dir other --set seed=4 --no-evaluation --quiet "
                    "--stop-after 10 && rm -r run && cp -a other run && rm -r run/store-0 && "
                    "longhaul train job.yaml --dir mine --no-evaluation --quiet --stop-after 10 && "
                    "cp -a mine/store-0 run/");
    faultkit_refuses(LH_EMISMATCH, "run/store-0: belongs to job|this is job|config",
                     "longhaul export --dir run --out new");
    faultkit_fails(LH_EMISMATCH, "run/store-0: belongs to job",
                   "longhaul train job.yaml --dir run --resume --set seed=4 --quiet");
    faultkit_refuses(LH_EMISMATCH, "another job|config.yaml",
                     "longhaul train job.yaml --dir run --resume --quiet");
    faultkit_passes("longhaul export --dir mine --out new");
}

/* A server that is told to serve a store that another one serves. */
static void run_that_another_process_works_on_is_busy(void **state)
{
    (void)state;
    faultkit_passes("longhaul train job.yaml --dir half --stop-after 10 --quiet");
    faultkit_fails(LH_EBUSY, "half: another scheduler",
                   "exec 9<half/.lock && flock 9 && "
                   "longhaul train job.yaml --dir half --resume --quiet");
    /* its server waits a while for one that is about to go */
    struct faultkit_end end = faultkit_run("exec 9<>half/store-0/lock && flock 9 && "
                                           "longhaul train job.yaml --dir half --resume --quiet");
    assert_int_equal(end.status, lh_err_exit_status(LH_EBUSY));
    kit_assert_contains(end.said, "half/store-0: is served by another server already");
    free(end.said);
    faultkit_passes("longhaul train job.yaml --dir half --resume --quiet");
}

/* --- snapshots ----------------------------------------------------------------------------------
 */
static void damaged_snapshot_is_refused_by_all_who_read_it(void **state)
{
    (void)state;
    static const char *const readers[] = {"longhaul act --snapshot snap states.csv",
                                          "longhaul evaluate --snapshot snap --dataset data"};
    static const struct {
        int code;
        const char *damage, *says;
    } cases[] = {
        {LH_ECORRUPT, "printf x | dd of=snap/weights.safetensors bs=1 seek=2000 conv=notrunc",
         "snap/weights.safetensors: its checksum|copy the snapshot again"},
        {LH_ECORRUPT, "printf x | dd of=snap/manifest.json bs=1 seek=400 conv=notrunc",
         "snap/manifest.json"},
        {LH_ECORRUPT, "echo 'x: 1' >>snap/config.yaml", "snap/config.yaml"},
        {LH_ECORRUPT, "truncate -s 100 snap/weights.safetensors", "snap/weights.safetensors"},
        {LH_ENOENT, "rm snap/weights.safetensors", "snap/weights.safetensors: is missing|copy"},
        {LH_ENOENT, "rm snap/config.yaml", "snap/config.yaml: is missing"},
        {LH_ENOENT, "rm snap/manifest.json", "snap: no snapshot|longhaul export"},
        {LH_EFORMAT, "cp data/manifest.json snap/", "snap/manifest.json: this is no snapshot"},
    };
    faultkit_passes("cp -a snap kept");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        faultkit_passes("%s", cases[i].damage);
        for (size_t r = 0; r < 2; r++)
            faultkit_refuses(cases[i].code, cases[i].says, "%s", readers[r]);
        faultkit_passes("rm -r snap && cp -a kept snap");
    }
}

/* Gives snap/ checksums that fit what its weights now are. */
static void seal_snapshot(const char *bytes, size_t n)
{
    char hex[LH_HEX + 1];
    kit_write_bytes(kit_path("snap/weights.safetensors"), bytes, n);
    char *manifest = kit_read(kit_path("snap/manifest.json"), NULL);
    char *entry = strstr(manifest, "\"weights.safetensors\"");
    assert_non_null(entry);
    char *sum = strstr(entry, "\"xxh3_64\"");
    sum = strchr(strchr(sum, ':'), '"') + 1;
    lh_snapshot_hex(hex, XXH3_64bits(bytes, n));
    memcpy(sum, hex, LH_HEX);
    char *size = strchr(strstr(entry, "\"bytes\""), ':') + 1;
    char *comma = strchr(size, ',');
    char *sealed = malloc(strlen(manifest) + 32);
    sprintf(sealed, "%.*s\t%zu%s", (int)(size - manifest), manifest, n, comma);
    lh_snapshot_seal(sealed);
    kit_write(kit_path("snap/manifest.json"), sealed);
    free(sealed);
    free(manifest);
}

/* Weights of snap/ whose header says `to` where it said `from`; lengths and checksums fit. */
static void lie_in_weights(const char *from, const char *to)
{
    size_t n;
    char *bytes = kit_read(kit_path("snap/weights.safetensors"), &n);
    char *at = memmem(bytes, n, from, strlen(from));
    if (!at)
        fail_msg("weights.safetensors: there is no '%s'", from);
    size_t head = (size_t)(at - bytes), tail = n - head - strlen(from), more = strlen(to);
    char *lie = malloc(head + more + tail);
    memcpy(lie, bytes, head);
    memcpy(lie + head, to, more);
    memcpy(lie + head + more, at + strlen(from), tail);
    uint64_t length;
    memcpy(&length, lie, 8);
    length += more - strlen(from);
    memcpy(lie, &length, 8);
    seal_snapshot(lie, head + more + tail);
    free(lie);
    free(bytes);
}

static const char *const snapshot_readers[] = {"longhaul act --snapshot snap states.csv",
                                               "longhaul evaluate --snapshot snap --dataset data"};

static void refused_by_readers_of_snapshots(const char *says)
{
    for (size_t r = 0; r < 2; r++)
        faultkit_refuses(LH_EFORMAT, says, "%s", snapshot_readers[r]);
    faultkit_passes("rm -r snap && cp -a kept snap");
}

/* The checksums fit, so that the lie is met where the header is believed or not. */
static void safetensors_whose_header_lies_is_refused_behind_a_checksum_that_fits(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"\"shape\":[8,2],\"data_offsets\":[32,96]", "\"shape\":[2,8],\"data_offsets\":[32,96]",
         "actor.high.0.weight"},
        {"\"shape\":[8,2]", "\"shape\":[8,3]", "actor.high.0.weight"},
        {"\"shape\":[8,2]", "\"shape\":[16]", "actor.high.0.weight"},
        {"\"shape\":[8,2]", "\"shape\":[4294967296,4294967296]", "actor.high.0.weight"},
        {"\"shape\":[8,2]", "\"shape\":[-8,-2]", "actor.high.0.weight"},
        {"[32,96]", "[28,92]", "actor.high.0.weight"},
        {"[32,96]", "[96,32]", "actor.high.0.weight"},
        {"[32,96]", "[32,1e300]", "actor.high.0.weight"},
        {"\"F32\"", "\"F64\"", "actor.high.0.bias"},
        {"actor.high.0.bias", "actor.high.9.bias", "actor.high."},
        {"actor.high.0.bias", "actor.high.1.bias", "actor.high."},
        {"{\"__metadata__\"", "[\"__metadata__\"", "weights.safetensors"},
    };
    size_t n;
    faultkit_passes("cp -a snap kept");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lie_in_weights(cases[i].from, cases[i].to);
        refused_by_readers_of_snapshots(cases[i].says);
    }
    static const uint64_t lengths[] = {0, 1, 1000, 14000, UINT32_MAX, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char *bytes = kit_read(kit_path("snap/weights.safetensors"), &n);
        memcpy(bytes, &lengths[i], 8);
        seal_snapshot(bytes, n);
        free(bytes);
        refused_by_readers_of_snapshots("snap/weights.safetensors");
    }
    for (size_t k = 0; k < 8; k++) {
        char *bytes = kit_read(kit_path("snap/weights.safetensors"), &n);
        seal_snapshot(bytes, n * k / 8);
        free(bytes);
        refused_by_readers_of_snapshots("snap/weights.safetensors");
    }
    /* what a network cannot compute with, at every 500th weight */
    static const uint32_t bits[] = {0x7fc00000, 0x7f800000, 0xff800000}; /* NaN, infinities */
    for (size_t k = 0; k < 6; k++) {
        char *bytes = kit_read(kit_path("snap/weights.safetensors"), &n);
        uint64_t header;
        memcpy(&header, bytes, 8);
        size_t weights = (n - 8 - header) / 4;
        memcpy(bytes + 8 + header + k * (weights / 6) * 4, &bits[k % 3], 4);
        seal_snapshot(bytes, n);
        free(bytes);
        refused_by_readers_of_snapshots("snap/weights.safetensors|a value that is not finite");
    }
    char *bytes = kit_read(kit_path("snap/weights.safetensors"), &n);
    seal_snapshot(bytes, n); /* the truth, sealed so, is taken */
    free(bytes);
    faultkit_passes("cmp snap/manifest.json kept/manifest.json && %s && %s", snapshot_readers[0],
                    snapshot_readers[1]);
}

/* Whole, and of something else: states of another width. */
static void snapshot_and_dataset_of_other_shapes_do_not_meet(void **state)
{
    (void)state;
    faultkit_passes("sed 's/state_low: .*/state_low: [{column: x}, {one_hot: g}]/' schema.yaml "
                    ">wide.yaml && longhaul import wide.yaml --out wide --quiet");
    faultkit_refuses(LH_EMISMATCH, "wide",
                     "longhaul evaluate --snapshot snap --dataset wide 2>all || { s=$?; "
                     "grep -v 'evaluating\\|behaviour model' all >&2; rm -rf all wide/.behaviour; "
                     "exit $s; }");
    faultkit_refuses(LH_EMISMATCH, "run|another job or dataset",
                     "longhaul train job.yaml --dir run --resume --quiet --set dataset=wide");
    faultkit_refuses(LH_EMISMATCH, "run|another job or dataset (optimiser.tau is 0.5, not 0.01)",
                     "longhaul train job.yaml --dir run --resume --quiet --set optimiser.tau=0.5");
    faultkit_refuses(LH_EMISMATCH, "wide", "longhaul export --dir run --out new --dataset wide");
    faultkit_refuses(LH_EFORMAT, "states.csv:1|'x'",
                     "sed -i s/x/z/ states.csv; longhaul act --snapshot snap states.csv; s=$?; "
                     "sed -i s/z/x/ states.csv; exit $s");
}

/* Weights of sessions cancel where a trajectory is one; the log of these tests has no sessions. */
static void sessions_as_unit_where_there_are_none_are_refused(void **state)
{
    (void)state;
    static const char says[] = "data: no trajectory has two sessions|evaluation.unit: row";
    faultkit_refuses(LH_EMISMATCH, says,
                     "longhaul train job.yaml --dir new --quiet --set evaluation.unit=session");
    faultkit_refuses(LH_EMISMATCH, says,
                     "longhaul evaluate --snapshot snap --dataset data --unit session --json");
    faultkit_refuses(LH_ECONFIG, "evaluation.unit|'sesion'|session",
                     "longhaul train job.yaml --dir new --quiet --set evaluation.unit=sesion");
    faultkit_passes("longhaul evaluate --snapshot snap --dataset data --unit row --json");
}

/* --- arrays -------------------------------------------------------------------------------------
 */
/* A header that says one thing of a file that is another. */
static void write_npy(const char *path, const char *header, size_t bytes)
{
    char text[512] = "\x93NUMPY\1";
    size_t n = strlen(header);
    memcpy(text + 8, &(uint16_t){(uint16_t)n}, 2);
    memcpy(text + 10, header, n);
    kit_write_bytes(path, text, 10 + n + bytes);
}

static void npy_whose_header_lies_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t bytes;
    } cases[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (100, 5), }\n", 20},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 5), }\n", 24},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }\n", 0},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 5), }\n", 20},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 5), }\n", 40},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (1, 5), }\n", 20},
        {"{'descr': '<f4'", 0},
        {"", 0},
    };
    faultkit_passes("mkdir -p case/batch case/noise case/param case/target && "
                    "grep -v dataset job.yaml | sed 's/resact/il/' >case/config.yaml");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_npy(kit_path("case/batch/a.npy"), cases[i].header, cases[i].bytes);
        faultkit_refuses(LH_EFORMAT, "case/batch/a.npy", "longhaul step --case case --out new");
    }
    unlink(kit_path("case/batch/a.npy"));
    faultkit_refuses(LH_ENOENT, "case/batch/a.npy", "longhaul step --case case --out new");
}

/* --- training -----------------------------------------------------------------------------------
 */
static void training_that_diverges_stops_at_the_step_and_keeps_the_last_cut(void **state)
{
    (void)state;
    static const char train[] =
        "longhaul train job.yaml --dir new --quiet --no-evaluation --workers 2 "
        "--set objective.bound=none --set optimiser.lr_critic=10 --set optimiser.lr_actor=10 "
        "--set optimiser.lr_cvae=10 --set checkpoint.every=1 --set train.steps=500 "
        "--set 'network.hidden=[8, 8, 8, 8]'";
    struct faultkit_end first = faultkit_run("%s", train);
    assert_int_equal(first.status, lh_err_exit_status(LH_EDIVERGED));
    faultkit_passes("longhaul export --dir new --out good --cut last && "
                    "longhaul act --snapshot good states.csv && cp -a new/store-0 kept");
    /* gone on with, it comes to the very same step, and says the cure again */
    faultkit_fails(LH_EDIVERGED, "step |the gradient of |diverged; lower the learning rates",
                   "%s --resume", train);
    struct faultkit_end again = faultkit_run("%s --resume", train);
    assert_string_equal(first.said, again.said);
    free(again.said);
    /* roles in processes of their own say no more: one line for the job */
    again = faultkit_run("%s --resume --launcher processes --servers 2", train);
    assert_string_equal(first.said, again.said);
    free(first.said);
    free(again.said);
    faultkit_passes("longhaul export --dir new --out better --cut last && "
                    "cmp good/weights.safetensors better/weights.safetensors");
}

/* Finite numbers that no network can work with unless they are scaled. */
static void data_that_overflow_in_training_name_the_tensor_and_leave_no_run(void **state)
{
    (void)state;
    faultkit_passes("sed -i '2,$s/^\\([^,]*,[^,]*\\),[^,]*/\\1,1e30/; 9s/1e30/-2e30/' log.csv && "
                    "longhaul import schema.yaml --out wild --quiet");
    faultkit_refuses(LH_EDIVERGED, "step 0: the gradient of |diverged",
                     "longhaul train job.yaml --dir new --quiet --no-evaluation "
                     "--set dataset=wild --set train.normalise=false");
    faultkit_passes("longhaul train job.yaml --dir new --quiet --no-evaluation "
                    "--set dataset=wild");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        faultkit_test(job_that_is_wrong_names_line_and_key),
        faultkit_test(schema_that_does_not_fit_the_log_says_where),
        faultkit_test(numbers_that_are_none_are_bad_rows),
        faultkit_test(damaged_partition_is_refused_by_all_who_read_it),
        faultkit_test(partition_with_any_bit_flipped_is_refused),
        faultkit_test(damaged_manifest_is_refused),
        faultkit_test(damaged_run_is_refused_and_stays),
        faultkit_test(store_of_another_job_is_refused),
        faultkit_test(run_that_another_process_works_on_is_busy),
        faultkit_test(damaged_snapshot_is_refused_by_all_who_read_it),
        faultkit_test(safetensors_whose_header_lies_is_refused_behind_a_checksum_that_fits),
        faultkit_test(snapshot_and_dataset_of_other_shapes_do_not_meet),
        faultkit_test(sessions_as_unit_where_there_are_none_are_refused),
        faultkit_test(npy_whose_header_lies_is_refused),
        faultkit_test(training_that_diverges_stops_at_the_step_and_keeps_the_last_cut),
        faultkit_test(data_that_overflow_in_training_name_the_tensor_and_leave_no_run),
    };
    return cmocka_run_group_tests(tests, faultkit_group_setup, faultkit_group_teardown);
}
