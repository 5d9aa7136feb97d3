# Builds for 64-bit ARM on another machine, with Debian's cross compilers and its arm64 packages unpacked in SYSROOT, and
# runs tests by qemu. ./dev test runs the operations test so, which is where NEON is.
#
#   cmake -S . -B build/aarch64 --toolchain tests/aarch64.cmake -DSYSROOT=FOLDER

set(NVCC none CACHE FILEPATH "No kernels: the tests here need none")
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES SYSROOT)

set(libraries ${SYSROOT}/usr/lib/aarch64-linux-gnu)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR} ${libraries}/pkgconfig:${SYSROOT}/usr/share/pkgconfig)
set(CMAKE_FIND_ROOT_PATH ${SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
# What the libraries need in turn is there too. The C library is the cross compiler's, at run time the packages'.
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,-rpath-link,${libraries}:${SYSROOT}/lib/aarch64-linux-gnu")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L ${SYSROOT})
