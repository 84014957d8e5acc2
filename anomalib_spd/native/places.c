/* Where two patches of one size can change places, as anomalib_spd.augmentation.swap_places has it, which says why. */
#include "native.h"

/* A row and a column. */
typedef struct {
    int64_t y, x;
} Pixel;

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The longest side, of its own length at most and as a share of it, for which the farther of two patches, shifted
 * inwards, still begins where the nearer ends. */
static float share_of_side(int64_t a, int64_t b, int64_t limit, int64_t side)
{
    int64_t near = smaller(a, b), far = a + b - near;
    return (float)smaller(far - near, (limit - near) / 2) / (float)side;
}

static float share_of_patch(Pixel a, Pixel b, Pixel limits, Pixel sides)
{
    float y = share_of_side(a.y, b.y, limits.y, sides.y), x = share_of_side(a.x, b.x, limits.x, sides.x);
    float share = y > x ? y : x;
    return share < 1 ? share : 1;
}

/* Place patches at the first of `number` anchors of each image and at the best of the others. What is found are the
 * rows of `found`: heights, widths, the first rows and columns of the one patch, then of the other, then columns and
 * rows of both anchors. */
API int64_t place_swaps(int64_t *found, const Pixel *anchors, int64_t number, const int64_t *heights,
                        const int64_t *widths, int64_t batch, int64_t height, int64_t width)
{
    Pixel limits = {height, width};
    for (int64_t i = 0; i < batch; i++) {
        Pixel first = anchors[i * number], sides = {heights[i], widths[i]};
        /* half the image away is for where nothing else is left */
        Pixel second = {(first.y + height / 2) % height, (first.x + width / 2) % width};
        float share = share_of_patch(first, second, limits, sides), best = share * 1e-6f;
        for (int64_t j = 1; j < number; j++) {
            float other = share_of_patch(first, anchors[i * number + j], limits, sides);
            /* the first of equals, and any of them before the last resort */
            if (other > best || (other == best && j == 1))
                best = share = other, second = anchors[i * number + j];
        }
        /* what is added is less than a pixel's share, and makes up for the division's rounding */
        int64_t tall = (int64_t)((float)sides.y * share + 1e-3f), wide = (int64_t)((float)sides.x * share + 1e-3f);
        tall = tall < 1 ? 1 : tall;
        wide = wide < 1 ? 1 : wide;
        int64_t row[] = {tall,
                         wide,
                         smaller(first.y, height - tall),
                         smaller(first.x, width - wide),
                         smaller(second.y, height - tall),
                         smaller(second.x, width - wide),
                         first.x,
                         first.y,
                         second.x,
                         second.y};
        for (int64_t j = 0; j < 10; j++)
            found[j * batch + i] = row[j];
    }
    return 0;
}
