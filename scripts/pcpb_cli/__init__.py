# SPDX-License-Identifier: GPL-2.0
"""The pcpb command: test kernel, module, tests and benchmarks.

Read in this order; a module uses only those above it:

    steps      where things live; running one long step with progress and log
    apt        packages: installing them, or only fetching them
    toolchain  the compiler, bindgen and Rust sources the kernel is built with
    kernel     the table of test kernels; fetch, configure, build, cache
    setup      all of the above, only where something is missing
    module     building pcp_buddy.ko
    vm         booting a kernel and running one command in it
    kernel_log what a kernel says of bugs, also of planted ones
    fuzz       fuzzing commands and allocators on this machine
    soak       everything at random in a guest
    test       the test run
    plant      planting bugs, to see the tests find them
    records    what a benchmark has measured; medians and ratios of it
    findings   what that says, in words
    chart      plots as SVG
    page       the report as an HTML page
    report     the report: in the terminal, and that page
    core       the core alone, on this machine: instructions and times
    bench      the benchmark: all policies on all workloads
    cli        the command line
"""
