# Draws time a step against batch, both logarithmic, as SVG. Lines of input: batch, then milliseconds
# with one worker, with two, and of PyTorch, between tabs.
BEGIN {
    FS = "\t"
    width = 760; height = 440; left = 70; right = 230; top = 40; bottom = 55
    name[2] = "1 worker"; name[3] = "2 workers"; name[4] = "PyTorch, one process"
    colour[2] = "#1f77b4"; colour[3] = "#d62728"; colour[4] = "#7f7f7f"
}
{
    for (k = 1; k <= 4; k++)
        v[NR, k] = $k
    for (k = 2; k <= 4; k++) {
        if (!hi || $k > hi) hi = $k
        if (!lo || $k < lo) lo = $k
    }
}
function x(batch) {
    return left + (width - left - right) * log(batch / v[1, 1]) / log(v[NR, 1] / v[1, 1])
}
function y(ms) {
    return height - bottom - (height - top - bottom) * log(ms / floor_) / log(ceil_ / floor_)
}
function text(at_x, at_y, anchor, what, fill) {
    printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" fill=\"%s\">%s</text>\n", at_x, at_y, anchor, fill ? fill : "#333", what
}
END {
    for (floor_ = 0.001; floor_ * 10 <= lo; floor_ *= 10);
    for (ceil_ = floor_; ceil_ < hi; ceil_ *= 10);
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"13\">\n", width, height
    printf "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
    text(left, 22, "start", "Milliseconds a training step of ResAct, against the batch")
    for (decade = floor_; decade <= ceil_ * 1.001; decade *= 10) {
        for (k = 1; k < 10 && decade * k <= ceil_ * 1.001; k++)
            printf "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", left, width - right, y(decade * k), y(decade * k), k == 1 ? "#bbb" : "#eee"
        text(left - 8, y(decade) + 4, "end", decade)
    }
    for (i = 1; i <= NR; i++) {
        printf "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#eee\"/>\n", x(v[i, 1]), x(v[i, 1]), top, height - bottom
        text(x(v[i, 1]), height - bottom + 20, "middle", v[i, 1])
    }
    text(left + (width - left - right) / 2, height - 12, "middle", "batch, transitions")
    for (k = 2; k <= 4; k++) {
        printf "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour[k]
        for (i = 1; i <= NR; i++)
            printf "%.1f,%.1f ", x(v[i, 1]), y(v[i, k])
        printf "\"/>\n"
        for (i = 1; i <= NR; i++)
            printf "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x(v[i, 1]), y(v[i, k]), colour[k]
        label[k] = y(v[NR, k]) + 4
    }
    # labels at the ends of their lines, pushed apart where lines end close together
    for (again = 0; again < 20; again++)
        for (k = 2; k <= 4; k++)
            for (j = k + 1; j <= 4; j++) {
                gap = label[j] - label[k]
                if (gap < 16 && gap > -16) {
                    push = (16 - (gap < 0 ? -gap : gap)) / 2 * (gap < 0 ? -1 : 1)
                    label[k] -= push
                    label[j] += push
                }
            }
    for (k = 2; k <= 4; k++)
        text(x(v[NR, 1]) + 10, label[k], "start", sprintf("%s, %.1f ms", name[k], v[NR, k]), colour[k])
    print "</svg>"
}
