"""The emulated CUDA driver, called through ctypes as any program calls libcuda.so.1."""

import ctypes
import pathlib

import numpy as np


class CudaError(Exception):
    """A CUresult that is not 0, with what the emulator found."""

    def __init__(self, result, finding):
        super().__init__(f"{result}: {finding}")
        self.result = result
        self.finding = finding


class Cuda:
    """One process has one device: make one of these, and reset() it between tests that break it."""

    def __init__(self, build):
        self.lib = ctypes.CDLL(str(pathlib.Path(build) / "tests" / "cuda_emu" / "libcuda.so.1"))
        self.lib.emu_last_finding.restype = ctypes.c_char_p
        self.lib.emu_set.argtypes = [ctypes.c_char_p, ctypes.c_ulonglong]
        self.call("cuInit", 0)
        self.retain()

    def finding(self):
        return self.lib.emu_last_finding().decode()

    def call(self, name, *args):
        result = getattr(self.lib, name)(*args)
        if result:
            raise CudaError(result, self.finding())

    def set(self, name, value):
        """A setting, by the end of its variable's name: SEED, STEPS, FAIL_LAUNCH, TRAFFIC, MEMORY_MB."""
        assert self.lib.emu_set(name.encode(), value) == 0, name

    def retain(self):
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxSetCurrent", context)

    def reset(self):
        self.call("cuDevicePrimaryCtxReset_v2", 0)
        self.retain()

    def load(self, ptx):
        module = ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), ptx.encode())
        return module

    def function(self, module, name):
        function = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return function

    def alloc(self, n_bytes):
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(n_bytes))
        return address

    def free(self, address):
        self.call("cuMemFree_v2", address)

    def put(self, array):
        array = np.ascontiguousarray(array)
        address = self.alloc(array.nbytes)
        self.call("cuMemcpyHtoD_v2", address, array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes))
        return address

    def get(self, address, dtype, n):
        array = np.empty(n, dtype)
        self.call("cuMemcpyDtoH_v2", array.ctypes.data_as(ctypes.c_void_p), address, ctypes.c_size_t(array.nbytes))
        return array

    def launch(self, function, grid, block, args, shared=0):
        """grid and block: tuples of 1 to 3; args: ctypes values. Waits for the end."""
        pointers = (ctypes.c_void_p * max(1, len(args)))(*[ctypes.cast(ctypes.byref(a), ctypes.c_void_p) for a in args])
        shape = [*grid, *(1,) * (3 - len(grid)), *block, *(1,) * (3 - len(block))]
        self.call("cuLaunchKernel", function, *shape, shared, None, pointers, None)
        self.call("cuCtxSynchronize")
