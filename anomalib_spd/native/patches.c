/* Patches of images that are swapped, pasted or blended in, as the transforms of anomalib_spd.augmentation do it. The
 * output is a copy of the images already, or is made one here. */
#include "native.h"

/* the numbers that are summed side by side; compilers make vectors of them */
enum { LANES = 16 };

typedef struct {
    int64_t channels, height, width;
} Shape;

/* A patch's size, the place it is read at and the one it is written to. */
typedef struct {
    int64_t height, width, source_y, source_x, target_y, target_x;
} Box;

static int fits(int64_t place, int64_t length, int64_t limit)
{
    return length > 0 && length <= limit && place >= 0 && place <= limit - length;
}

static int box_fits(const Box *box, Shape shape)
{
    return fits(box->source_y, box->height, shape.height) && fits(box->source_x, box->width, shape.width) &&
           fits(box->target_y, box->height, shape.height) && fits(box->target_x, box->width, shape.width);
}

/* Copy an image, which then is in the processor's cache, if that is not done yet. Returns whether the patch fits. */
static int start(float *to, const float *from, int64_t copied, const Box *box, Shape shape)
{
    if (!copied)
        memcpy(to, from, sizeof(float) * shape.channels * shape.height * shape.width);
    return box_fits(box, shape);
}

/* Two patches change places. */
API WIDE int64_t swap_patches(float *output, const float *images, const Box *boxes, int64_t copied, int64_t batch,
                              int64_t channels, int64_t height, int64_t width)
{
    Shape shape = {channels, height, width};
    int64_t plane = shape.height * shape.width, pixels = shape.channels * plane, refused = 0;
    for (int64_t i = 0; i < batch; i++) {
        const Box *box = boxes + i;
        const float *from = images + i * pixels;
        float *to = output + i * pixels;
        if (!start(to, from, copied, box, shape)) {
            refused++;
            continue;
        }
        for (int64_t c = 0; c < shape.channels; c++)
            for (int64_t y = 0; y < box->height; y++) {
                int64_t source = c * plane + (box->source_y + y) * shape.width + box->source_x;
                int64_t target = c * plane + (box->target_y + y) * shape.width + box->target_x;
                memcpy(to + target, from + source, sizeof(float) * box->width);
                memcpy(to + source, from + target, sizeof(float) * box->width);
            }
    }
    return refused;
}

/* What colours become: `matrix` times them, plus `rest` times the patch's mean grey. Of 3 channels or 1; else it is
 * NULL. */
typedef struct {
    const float *matrix, *rest, *grey;
} Colors;

static float within(float value)
{
    value = value < 0 ? 0 : value;
    return value > 1 ? 1 : value;
}

/* Write the patch of an image in its new colours. Rows of `to` are `pitch` apart, its channels `next`. */
static inline void recolor(float *to, int64_t pitch, int64_t next, const float *from, const Box *box, Shape shape,
                           Colors colors, int64_t i)
{
    int64_t plane = shape.height * shape.width, channels = shape.channels;
    from += box->source_y * shape.width + box->source_x;
    if (!colors.matrix) {
        for (int64_t c = 0; c < channels; c++)
            for (int64_t y = 0; y < box->height; y++)
                memcpy(to + c * next + y * pitch, from + c * plane + y * shape.width, sizeof(float) * box->width);
        return;
    }
    double mean = 0;
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0;
        for (int64_t y = 0; y < box->height; y++) {
            const float *row = from + c * plane + y * shape.width;
            float lanes[LANES] = {0};
            int64_t x = 0;
            for (; x + LANES <= box->width; x += LANES)
                for (int j = 0; j < LANES; j++)
                    lanes[j] += row[x + j];
            for (; x < box->width; x++)
                lanes[0] += row[x];
            for (int j = 0; j < LANES; j++)
                sum += lanes[j];
        }
        mean += colors.grey[c] * sum;
    }
    mean /= (double)(box->height * box->width);
    const float *m = colors.matrix + i * channels * channels;
    float offset = colors.rest[i] * (float)mean;
    for (int64_t y = 0; y < box->height; y++) {
        const float *red = from + y * shape.width;
        float *out = to + y * pitch;
        if (channels == 1) {
            for (int64_t x = 0; x < box->width; x++)
                out[x] = within(m[0] * red[x] + offset);
            continue;
        }
        const float *green = red + plane, *blue = green + plane;
        for (int c = 0; c < 3; c++)
            for (int64_t x = 0; x < box->width; x++)
                out[c * next + x] =
                    within(m[3 * c] * red[x] + m[3 * c + 1] * green[x] + m[3 * c + 2] * blue[x] + offset);
    }
}

/* A patch is pasted at another place, in new colours. */
API WIDE int64_t paste_patches(float *output, const float *images, const Box *boxes, const float *matrix,
                               const float *rest, const float *grey, int64_t copied, int64_t batch, int64_t channels,
                               int64_t height, int64_t width)
{
    Shape shape = {channels, height, width};
    Colors colors = {matrix, rest, grey};
    int64_t plane = shape.height * shape.width, pixels = shape.channels * plane, refused = 0;
    for (int64_t i = 0; i < batch; i++) {
        const Box *box = boxes + i;
        const float *from = images + i * pixels;
        float *to = output + i * pixels;
        if (!start(to, from, copied, box, shape)) {
            refused++;
            continue;
        }
        to += box->target_y * shape.width + box->target_x;
        recolor(to, shape.width, plane, from, box, shape, colors, i);
    }
    return refused;
}

/* A patch, in new colours and with its edge continued, is blended into the window, at `places` (row and column) of its
 * image, of which `rows` and `columns` say how much of the patch is seen. Where `bare`, there are zeros around the
 * patch. */
API WIDE int64_t blend_patches(float *output, const float *images, const Box *boxes, const float *matrix,
                               const float *rest, const float *grey, const int64_t *places, const float *rows,
                               const float *all_columns, int64_t window_height, int64_t window_width, int64_t bare,
                               int64_t copied, int64_t batch, int64_t channels, int64_t height, int64_t width)
{
    Shape shape = {channels, height, width};
    Colors colors = {matrix, rest, grey};
    int64_t plane = shape.height * shape.width, pixels = shape.channels * plane, refused = 0;
    float *patch = malloc(sizeof(float) * pixels), *line = malloc(sizeof(float) * 2 * window_width);
    if (!patch || !line) {
        free(patch);
        free(line);
        return -1;
    }
    float *alpha = line + window_width;
    for (int64_t i = 0; i < batch; i++) {
        const Box *box = boxes + i;
        const float *from = images + i * pixels, *columns = all_columns + i * window_width;
        float *to = output + i * pixels;
        int64_t top = places[2 * i], left = places[2 * i + 1], area = box->height * box->width;
        if (!start(to, from, copied, box, shape) || !fits(top, window_height, shape.height) ||
            !fits(left, window_width, shape.width)) {
            refused++;
            continue;
        }
        recolor(patch, box->width, area, from, box, shape, colors, i);
        /* only the columns that anything is seen in */
        int64_t begin = 0, end = window_width;
        while (begin < end && columns[begin] == 0)
            begin++;
        while (end > begin && columns[end - 1] == 0)
            end--;
        /* of these, those from which the patch's own columns come */
        int64_t shift = box->target_x - left;
        int64_t in = shift < begin ? begin : shift > end ? end : shift;
        int64_t out = shift + box->width < in ? in : shift + box->width > end ? end : shift + box->width;
        for (int64_t y = 0; y < window_height; y++) {
            float share = rows[i * window_height + y];
            if (share == 0)
                continue;
            int64_t row = top + y - box->target_y, nearest = row < 0 ? 0 : row >= box->height ? box->height - 1 : row;
            for (int64_t x = begin; x < end; x++)
                alpha[x] = share * columns[x];
            for (int64_t c = 0; c < shape.channels; c++) {
                const float *of_patch = patch + c * area + nearest * box->width;
                float before = bare ? 0 : of_patch[0], behind = bare ? 0 : of_patch[box->width - 1];
                for (int64_t x = begin; x < in; x++)
                    line[x] = before;
                if (bare && row != nearest)
                    memset(line + in, 0, sizeof(float) * (out - in));
                else
                    memcpy(line + in, of_patch + in - shift, sizeof(float) * (out - in));
                for (int64_t x = out; x < end; x++)
                    line[x] = behind;
                float *pixel = to + c * plane + (top + y) * shape.width + left;
                /* as torch.lerp: exact at both ends */
                for (int64_t x = begin; x < end; x++) {
                    float step = line[x] - pixel[x];
                    pixel[x] = alpha[x] < 0.5f ? pixel[x] + alpha[x] * step : line[x] - step * (1 - alpha[x]);
                }
            }
        }
    }
    free(patch);
    free(line);
    return refused;
}
