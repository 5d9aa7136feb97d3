/*
 * cuda_image.S: the kernels' machine code and PTX as bytes of the program. cuda_images.def is written by
 * cuda/CMakeLists.txt: IMAGE(capability, name, file), newest first, the PTX (capability 0) last; a NUL ends each.
 */
#define IMAGE(capability, name, file)                                                                                  \
    .balign 64;                                                                                                        \
    .global cuda_image_##capability;                                                                                   \
    cuda_image_##capability : .incbin file;                                                                            \
    .byte 0;

    .section .rodata
#include "cuda_images.def"

    .section .note.GNU-stack, "", %progbits
