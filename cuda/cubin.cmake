# Assembles PTX to CUBIN for ARCHITECTURE and fails when a kernel spills registers or has a stack frame. What the assembler
# says of each kernel is kept beside the cubin: all of it as a .txt, and as a .def a row each for the benches:
# RESOURCE(architecture, kernel, registers, static bytes of shared memory).
execute_process(COMMAND ${NVCC} -cubin -arch=sm_${ARCHITECTURE} -Xptxas -v ${PTX} -o ${CUBIN}
  RESULT_VARIABLE status OUTPUT_VARIABLE said ERROR_VARIABLE said)
if(status)
  message(FATAL_ERROR "nvcc failed for sm_${ARCHITECTURE}:\n${said}")
endif()
file(WRITE ${CUBIN}.txt "${said}")
string(REGEX MATCHALL
  "Compiling entry function '[^']*'|[1-9][0-9]* bytes (stack frame|spill stores|spill loads)|Used [0-9]+ registers[^\n]*"
  lines "${said}")
set(wrong "")
set(rows "")
foreach(line IN LISTS lines)
  if(line MATCHES "function '(.*)'")
    set(kernel ${CMAKE_MATCH_1})
  elseif(line MATCHES "Used ([0-9]+) registers")
    set(registers ${CMAKE_MATCH_1})
    set(shared 0)
    if(line MATCHES "([0-9]+) bytes smem")
      set(shared ${CMAKE_MATCH_1})
    endif()
    string(APPEND rows "RESOURCE(${ARCHITECTURE}, ${kernel}, ${registers}, ${shared})\n")
  else()
    string(APPEND wrong "\n  ${kernel}: ${line}")
  endif()
endforeach()
file(WRITE ${CUBIN}.def "${rows}")
if(wrong)
  file(REMOVE ${CUBIN})
  message(FATAL_ERROR "kernels for sm_${ARCHITECTURE} do not fit in registers:${wrong}")
endif()
