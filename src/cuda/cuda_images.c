// cuda_images.c: the table over the bytes that cuda_image.S embeds; see cuda_driver.h.
#include "cuda/cuda_driver.h"

#define IMAGE(capability, name, file) extern const char cuda_image_##capability[];
#include "cuda_images.def"
#undef IMAGE

const cuda_image cuda_images[] = {
#define IMAGE(capability, name, file) {capability, name, cuda_image_##capability},
#include "cuda_images.def"
#undef IMAGE
    {0, NULL, NULL}, // an empty table is no C
};
const int n_cuda_images = (int)ARRAY_LEN(cuda_images) - 1;
