# Medians of bench_wire's lines over rounds, as tables for people, or with -v json=1 as lines.
#     awk -f wire_table.awk LINES
# "raw" is the better of raw ZeroMQ with one message a tensor and with messages of 1 MB.
function text(key,   m) {
    match($0, "\"" key "\": \"[^\"]*\"")
    m = substr($0, RSTART, RLENGTH); sub(/.*: "/, "", m); sub(/"$/, "", m)
    return m
}
function num(key,   m) {
    match($0, "\"" key "\": [-0-9.e+]+")
    m = substr($0, RSTART, RLENGTH); sub(/.*: /, "", m)
    return m + 0
}
function keep(series, x) {
    n[series]++
    all[series, n[series]] = x
}
function median(series,   k, i, j, t, x) {
    k = n[series]
    for (i = 1; i <= k; i++) {
        t = all[series, i]
        for (j = i - 1; j >= 1 && x[j] > t; j--) x[j + 1] = x[j]
        x[j + 1] = t
    }
    return k == 0 ? 0 : k % 2 ? x[(k + 1) / 2] : (x[k / 2] + x[k / 2 + 1]) / 2
}
function size(bytes) {
    return bytes < 1048576 ? bytes / 1024 " KB" : bytes / 1048576 " MB"
}
{
    at = num("clients") SUBSEP num("flight") SUBSEP text("transport") SUBSEP num("bytes") SUBSEP text("op")
    if (!(at in seen)) {
        seen[at] = 1
        order[++cases] = at
    }
    s = at SUBSEP text("system")
    keep(s SUBSEP "gb", num("gb_per_s")); keep(s SUBSEP "per", num("per_s"))
    keep(s SUBSEP "p50", num("p50_us")); keep(s SUBSEP "p99", num("p99_us"))
}
END {
    for (i = 1; i <= cases; i++) {
        split(order[i], c, SUBSEP)
        ours = order[i] SUBSEP "ours" SUBSEP
        raw = order[i] SUBSEP "raw" SUBSEP
        if (median(order[i] SUBSEP "raw-pieces" SUBSEP "gb") > median(raw "gb"))
            raw = order[i] SUBSEP "raw-pieces" SUBSEP
        og = median(ours "gb"); rg = median(raw "gb"); o50 = median(ours "p50"); r50 = median(raw "p50")
        row = sprintf("%.3f|%.3f|%.2f|%.0f|%.0f|%.1f|%.1f|%.2f|%.1f|%.1f", og, rg, rg ? og / rg : 0, median(ours "per"),
                      median(raw "per"), o50, r50, r50 ? o50 / r50 : 0, median(ours "p99"), median(raw "p99"))
        split(row, f, "|")
        if (json) {
            printf "{\"part\": \"wire\", \"transport\": \"%s\", \"bytes\": %d, \"clients\": %d, \"flight\": %d, \"op\": \"%s\", \"gb_per_s\": %s, \"raw_gb_per_s\": %s, \"ratio\": %s, \"per_s\": %s, \"raw_per_s\": %s, \"p50_us\": %s, \"raw_p50_us\": %s, \"p50_ratio\": %s, \"p99_us\": %s, \"raw_p99_us\": %s}\n", \
                c[3], c[4], c[1], c[2], c[5], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9], f[10]
            continue
        }
        if (c[1] SUBSEP c[2] != group) {
            group = c[1] SUBSEP c[2]
            printf "\n%d client%s, %d request%s in flight:\n\n", c[1], (c[1] > 1 ? "s" : ""), c[2], (c[2] > 1 ? "s each" : "")
            print "| transport | tensor | | GB/s | raw | ratio | a second | raw | p50, us | raw | ratio | p99, us | raw |"
            print "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
        }
        printf "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", \
            c[3], size(c[4]), c[5], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9], f[10]
    }
}
