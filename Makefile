# SPDX-License-Identifier: GPL-2.0
#
# Short names for everything a developer does here. The module targets are
# plain kbuild and need nothing of ours but this file; the others call
# scripts/pcpb, which brings in whatever they need.

KDIR ?= /lib/modules/$(shell uname -r)/build
# Objects go here, so that those of different kernels do not meet.
MO ?= build/kdir
# The folder of the module.
SRC ?= rust

kbuild = $(MAKE) -C $(KDIR) M=$(CURDIR)/$(SRC) MO=$(abspath $(MO))/$(SRC)

modules modules_install:
	@mkdir -p $(abspath $(MO))/$(SRC)
	+$(kbuild) $@

clean:
	rm -rf build

setup build test bench:
	./scripts/pcpb $@

help:
	@echo 'The module, for a kernel tree of your own (built with CONFIG_RUST):'
	@echo '  make modules KDIR=DIR          build build/kdir/rust/pcp_buddy.ko'
	@echo '  make modules_install KDIR=DIR  install it (INSTALL_MOD_PATH=... as usual)'
	@echo '  make clean                     remove everything that was built here'
	@echo
	@echo 'With the test kernel, which is fetched and built when it is first needed:'
	@echo '  make setup                     install what this machine lacks'
	@echo '  make build                     build the module for the test kernel'
	@echo '  make test                      run all tests'
	@echo '  make bench                     measure all policies, write the report'
	@echo
	@echo 'See ./scripts/pcpb --help for more, such as running a command in the guest.'

.DEFAULT_GOAL := modules
.PHONY: modules modules_install clean setup build test bench help
