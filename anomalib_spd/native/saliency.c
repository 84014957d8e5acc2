/* Pixels that are drawn from the salient part of saliency maps, as anomalib_spd.saliency.anchors does it. */
#include <float.h>
#include <math.h>

#include "native.h"

/* neighbours are often alike: they count in tables of their own, so that none waits for the other */
enum { TABLES = 4 };

/* ---- levels ---- */

/* The pixels of a map, every stride-th of every stride-th row of which is rounded to one of so many levels. */
typedef struct {
    const float *pixels;
    int64_t height, width, stride, levels;
    float low, high;
    double *values, *counts;
} Map;

/* What is needed beside; it serves one map after the other. */
typedef struct {
    float *low, *high;
    int32_t *row, *tables;
} Scratch;

/* Find the ends of what is looked at: of each column first, which compilers make vectors of. */
WIDE static void find_ends(Map *map, Scratch scratch)
{
    int64_t width = map->width;
    float *restrict low = scratch.low, *restrict high = scratch.high;
    for (int64_t x = 0; x < width; x++)
        low[x] = INFINITY, high[x] = -INFINITY;
    for (int64_t y = 0; y < map->height; y += map->stride) {
        const float *restrict row = map->pixels + y * width;
        for (int64_t x = 0; x < width; x++) {
            low[x] = row[x] < low[x] ? row[x] : low[x];
            high[x] = row[x] > high[x] ? row[x] : high[x];
        }
    }
    map->low = INFINITY, map->high = -INFINITY;
    for (int64_t x = 0; x < width; x += map->stride) {
        map->low = low[x] < map->low ? low[x] : map->low;
        map->high = high[x] > map->high ? high[x] : map->high;
    }
}

/* Count the levels, from the lowest to the highest. */
WIDE static void count(Map *map, Scratch scratch)
{
    int64_t levels = map->levels, number = (map->width + map->stride - 1) / map->stride;
    float low = map->low, distance = (map->high - low) / (float)(levels - 1), scale = distance > 0 ? 1 / distance : 0;
    float highest = (float)(levels - 1);
    memset(scratch.tables, 0, sizeof(int32_t) * TABLES * levels);
    for (int64_t y = 0; y < map->height; y += map->stride) {
        const float *row = map->pixels + y * map->width;
        for (int64_t x = 0; x < number; x++) {
            float level = (row[x * map->stride] - low) * scale + 0.5f;
            /* what is no number counts as the highest, until it is found when rows are counted */
            scratch.row[x] = (int32_t)(level < highest ? level : highest);
        }
        int64_t x = 0;
        for (; x + TABLES <= number; x += TABLES)
            for (int table = 0; table < TABLES; table++)
                scratch.tables[table * levels + scratch.row[x + table]]++;
        for (; x < number; x++)
            scratch.tables[scratch.row[x]]++;
    }
    for (int64_t level = 0; level < levels; level++) {
        int64_t all = 0;
        for (int64_t table = 0; table < TABLES; table++)
            all += scratch.tables[table * levels + level];
        map->counts[level] = (double)all;
        map->values[level] = low + (double)level * distance;
    }
}

/* ---- clusters ---- */

/* Of the values before each, how many there are, their sum and that of their squares. */
typedef struct {
    double count, sum, squares;
} Moments;

/* The inertia of the values from edge a to edge b. */
static double inertia(const Moments *upto, int64_t a, int64_t b)
{
    double count = upto[b].count - upto[a].count, sum = upto[b].sum - upto[a].sum;
    return count > 0 ? upto[b].squares - upto[a].squares - sum * sum / count : 0;
}

/* Find, for each end from `low` to `high`, where the last of its clusters best begins: never before that of a lesser
 * end. */
static void best_begins(double *total, int32_t *begins, const double *before, const Moments *upto, int64_t low,
                        int64_t high, int64_t least, int64_t most)
{
    if (low > high)
        return;
    int64_t end = (low + high) / 2, best = least;
    double found = INFINITY;
    for (int64_t begin = least; begin <= (most < end ? most : end); begin++) {
        double whole = before[begin] + inertia(upto, begin, end);
        if (whole < found)
            found = whole, best = begin;
    }
    total[end] = found, begins[end] = (int32_t)best;
    best_begins(total, begins, before, upto, low, end - 1, least, best);
    best_begins(total, begins, before, upto, end + 1, high, best, most);
}

/* Cluster the levels of a map into k: the centers of the least inertia there can be, and half way between them the
 * boundaries. */
static void cluster(float *boundaries, Map map, int64_t k, Moments *upto, double *total, int32_t *begins)
{
    int64_t levels = map.levels;
    /* sums of squares are small, and their differences precise, where values count from the middle */
    double middle = (map.values[0] + map.values[levels - 1]) / 2;
    upto[0] = (Moments){0, 0, 0};
    for (int64_t m = 0; m < levels; m++) {
        double value = map.values[m] - middle, sum = map.counts[m] * value;
        upto[m + 1] = (Moments){upto[m].count + map.counts[m], upto[m].sum + sum, upto[m].squares + sum * value};
    }
    double *before = total, *now = total + levels + 1;
    for (int64_t end = 0; end <= levels; end++)
        before[end] = inertia(upto, 0, end);
    for (int64_t j = 1; j < k; j++) {
        /* of the last cluster only one end matters */
        best_begins(now, begins + j * (levels + 1), before, upto, j == k - 1 ? levels : 0, levels, 0, levels);
        double *other = before;
        before = now, now = other;
    }
    float next = 0;
    for (int64_t j = k - 1, end = levels; j >= 0; j--) {
        int64_t begin = j ? begins[j * (levels + 1) + end] : 0, above = begin < levels ? begin : levels - 1;
        double number = upto[end].count - upto[begin].count;
        /* where nobody is, the first level above stands in */
        double center = number > 0 ? (upto[end].sum - upto[begin].sum) / number : map.values[above] - middle;
        if (j < k - 1)
            boundaries[j] = ((float)(middle + center) + next) / 2;
        next = (float)(middle + center);
        end = begin;
    }
}

static int64_t label(const float *boundaries, int64_t k, double value)
{
    int64_t below = 0;
    while (below < k - 1 && boundaries[below] < value)
        below++;
    return below;
}

/* ---- the region ---- */

/* in the order of anchors.Choice */
typedef enum { MAX, MIN, RANDOM } Choice;

/* The pixels whose value is greater than `above` and not greater than `up_to`. */
typedef struct {
    float above, up_to;
} Region;

/* Which pixels one cluster has; where it has too few, the `top` most salient. Why so: see salient_region in anchors.py.
 */
static Region region_of(Map map, const float *boundaries, int64_t k, Choice choice, float draw, int64_t top)
{
    if (map.high == map.low)
        return (Region){-INFINITY, INFINITY};
    int64_t lowest = label(boundaries, k, map.values[0]), highest = label(boundaries, k, map.values[map.levels - 1]);
    int64_t chosen = choice == MIN ? lowest : highest;
    if (choice == RANDOM) {
        int64_t filled = 0;
        for (int pass = 0; pass < 2; pass++) {
            int64_t number = (int64_t)(draw * (float)filled), last = -1, seen = 0;
            for (int64_t m = 0; m < map.levels; m++) {
                int64_t cluster = label(boundaries, k, map.values[m]);
                if (map.counts[m] > 0 && cluster != last) {
                    if (pass && seen == number)
                        chosen = cluster;
                    last = cluster;
                    seen++;
                }
            }
            filled = seen;
        }
    }
    float margin = 0.501f * (map.high - map.low) / (float)(map.levels - 1);
    double members = 0, least_value = INFINITY, greatest_value = -INFINITY;
    for (int64_t m = 0; m < map.levels; m++)
        if (map.counts[m] > 0 && label(boundaries, k, map.values[m]) == chosen) {
            members += map.counts[m];
            least_value = map.values[m] < least_value ? map.values[m] : least_value;
            greatest_value = map.values[m];
        }
    if (members < 2) {
        double from_top = 0;
        int64_t pixels = map.height * map.width, enough = map.levels;
        while (enough > 0 && from_top * (double)(map.stride * map.stride) < (double)(top < pixels ? top : pixels))
            from_top += map.counts[--enough];
        return (Region){(float)(map.values[enough] - margin), INFINITY};
    }
    Region region = {(float)(least_value - margin), (float)(greatest_value + margin)};
    /* what is beyond the ends of what was looked at belongs to the clusters there */
    if (chosen == lowest)
        region.above = -INFINITY;
    if (chosen == highest)
        region.up_to = INFINITY;
    return region;
}

/* ---- pixels ---- */

/* Count the pixels of a region in the rows before each. Returns whether all of the map is finite. */
WIDE static int count_rows(int32_t *upto, Map map, Region region, Scratch scratch)
{
    float above = region.above, up_to = region.up_to, *restrict zero = scratch.low;
    memset(zero, 0, sizeof(float) * map.width);
    upto[0] = 0;
    for (int64_t y = 0; y < map.height; y++) {
        const float *restrict row = map.pixels + y * map.width;
        int32_t members = 0;
        for (int64_t x = 0; x < map.width; x++) {
            members += (row[x] > above) & (row[x] <= up_to);
            zero[x] += row[x] - row[x];
        }
        upto[y + 1] = upto[y] + members;
    }
    int finite = 1;
    for (int64_t x = 0; x < map.width; x++)
        finite &= zero[x] == 0;
    return finite;
}

/* One of so many, from 0; a draw next to 1 may be rounded up to one too many. */
static int32_t pick(float draw, int32_t number)
{
    int32_t picked = (int32_t)(draw * (float)number);
    return picked < number ? picked : number - 1;
}

/* Draw a pixel of the region: a row by its share of them, then one of the row. */
static void draw_pixel(int64_t *pixel, const float *draws, Map map, Region region, const int32_t *upto)
{
    int32_t chosen = pick(draws[0], upto[map.height]);
    int64_t y = 0, x = 0;
    for (int64_t beyond = map.height; beyond - y > 1;) {
        int64_t middle = (y + beyond) / 2;
        if (upto[middle] <= chosen)
            y = middle;
        else
            beyond = middle;
    }
    const float *row = map.pixels + y * map.width;
    for (int32_t rest = pick(draws[1], upto[y + 1] - upto[y]); x < map.width - 1; x++)
        if (row[x] > region.above && row[x] <= region.up_to && rest-- == 0)
            break;
    pixel[0] = y;
    pixel[1] = x;
}

/* Draw so many pixels of each map, by pairs of draws, from a cluster of its values. A map that is not finite is not
 * served. */
API int64_t draw_salient(int64_t *pixels, Region *regions, const float *maps, const float *draws, int64_t number,
                         const float *cluster_draws, int64_t k, int64_t choice, int64_t top, int64_t stride,
                         int64_t levels, int64_t batch, int64_t height, int64_t width)
{
    Scratch scratch = {malloc(sizeof(float) * width), malloc(sizeof(float) * width), malloc(sizeof(int32_t) * width),
                       malloc(sizeof(int32_t) * TABLES * levels)};
    double *numbers = malloc(sizeof(double) * (4 * levels + 2));
    Moments *upto = malloc(sizeof(Moments) * (levels + 1));
    int32_t *begins = malloc(sizeof(int32_t) * k * (levels + 1)), *rows = malloc(sizeof(int32_t) * (height + 1));
    float *boundaries = malloc(sizeof(float) * k);
    int64_t refused = -1;
    if (scratch.low && scratch.high && scratch.row && scratch.tables && numbers && upto && begins && rows &&
        boundaries) {
        refused = 0;
        for (int64_t i = 0; i < batch; i++) {
            Map map = {maps + i * height * width, height, width, stride, levels, 0, 0, numbers, numbers + levels};
            find_ends(&map, scratch);
            /* the ends may be finite and so far apart that their distance is not */
            if (!(map.high - map.low <= FLT_MAX)) {
                refused++;
                continue;
            }
            count(&map, scratch);
            cluster(boundaries, map, k, upto, numbers + 2 * levels, begins);
            regions[i] = region_of(map, boundaries, k, (Choice)choice, cluster_draws[i], top);
            if (!count_rows(rows, map, regions[i], scratch)) {
                refused++;
                continue;
            }
            for (int64_t j = i * number; j < (i + 1) * number; j++)
                draw_pixel(pixels + 2 * j, draws + 2 * j, map, regions[i], rows);
        }
    }
    free(scratch.low);
    free(scratch.high);
    free(scratch.row);
    free(scratch.tables);
    free(numbers);
    free(upto);
    free(begins);
    free(rows);
    free(boundaries);
    return refused;
}
