# The daemon's installation, its man page, and the Debian package. Included by the Makefile.
VERSION := $(shell sed -n 's/^\#define VF_VERSION "\(.*\)"$$/\1/p' base/version.h)
SYSCONFDIR ?= /etc
DEB := build/vmfactory_$(VERSION)_$(shell dpkg --print-architecture 2>/dev/null).deb
# What only `make deb` and `make check-deb` use.
DEB_DEPS := dpkg-dev debootstrap

UNITS := vmfactory-api.socket vmfactory-stats.socket
LIBDIR = $(DESTDIR)$(PREFIX)/lib

build/man/vmfactoryd.8: build/vmfactoryd
	@mkdir -p $(@D)
	build/vmfactoryd generate man >$@.tmp
	mv $@.tmp $@
all: $(if $(SAN),,build/man/vmfactoryd.8)

.PHONY: install-daemon
install-daemon: all
	install -d $(DESTDIR)$(PREFIX)/sbin $(LIBDIR)/systemd/system $(LIBDIR)/sysusers.d $(LIBDIR)/tmpfiles.d \
	    $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(SYSCONFDIR)/vmfactory
	install -m 755 build/vmfactoryd $(DESTDIR)$(PREFIX)/sbin
	install -m 644 build/man/vmfactoryd.8 $(DESTDIR)$(PREFIX)/share/man/man8
	sed 's|@SBINDIR@|$(PREFIX)/sbin|; s|@DOCDIR@|$(PREFIX)/share/doc/vmfactory|' \
	    packaging/systemd/vmfactoryd.service.in >$(LIBDIR)/systemd/system/vmfactoryd.service
	chmod 644 $(LIBDIR)/systemd/system/vmfactoryd.service
	install -m 644 $(UNITS:%=packaging/systemd/%) $(LIBDIR)/systemd/system
	install -d $(DESTDIR)$(PREFIX)/share/doc/vmfactory
	install -m 644 packaging/systemd/no-network.conf $(DESTDIR)$(PREFIX)/share/doc/vmfactory
	install -m 644 packaging/systemd/sysusers.conf $(LIBDIR)/sysusers.d/vmfactory.conf
	install -m 644 packaging/systemd/tmpfiles.conf $(LIBDIR)/tmpfiles.d/vmfactory.conf
	# An administrator's own file stays.
	[ -e $(DESTDIR)$(SYSCONFDIR)/vmfactory/vmfactoryd.json ] || \
	    install -m 644 packaging/vmfactoryd.json $(DESTDIR)$(SYSCONFDIR)/vmfactory

.PHONY: deb check-deb check-packaging
deb: deps-deb
	$(MAKE) $(JOBS) $(DEB)
$(DEB): all
	rm -rf build/deb
	$(MAKE) install DESTDIR=$(abspath build/deb) PREFIX=/usr SYSCONFDIR=/etc
	packaging/deb/build $(abspath build/deb) $(VERSION) $(abspath $@)
check-deb: deb
	packaging/deb/check $(DEB)

# What of systemd.exec(5) gives a service a mount namespace of its own.
OWN_MOUNTS := (Protect(System|Home|KernelTunables|KernelModules|KernelLogs|ControlGroups|Proc)|ProcSubset|DynamicUser|Log\
Namespace|Private(Tmp|Devices|Mounts|Network|IPC|PIDs|BPF)|Root(Directory|Image)|(Mount|Extension)Images|ExtensionDirectories|\
MountFlags|TemporaryFileSystem|Bind(ReadOnly)?Paths|(ReadOnly|ReadWrite|Inaccessible|Exec|NoExec)Paths)=

# What can be said of units and man pages without installing them.
check-packaging: all
	@! grep -nE '^$(subst $(eval) ,,$(OWN_MOUNTS))' packaging/systemd/vmfactoryd.service.in >&2 || \
	    { echo 'vmfactoryd.service: its mounts would be its own, and networks are mounts' >&2; exit 1; }
	@if command -v systemd-analyze >/dev/null; then \
	    rm -rf build/units && $(MAKE) -s install-daemon DESTDIR=$(abspath build/units) PREFIX=/usr SYSCONFDIR=/etc && \
	    sed -i 's|/usr/sbin/|$(abspath build/units)/usr/sbin/|' build/units/usr/lib/systemd/system/*.service && \
	    units=build/units/usr/lib/systemd/system && for also in '' no-network.conf; do \
	        [ -z "$$also" ] || install -D -m 644 packaging/systemd/$$also $$units/vmfactoryd.service.d/$$also; \
	        systemd-analyze verify --man=no $$units/vmfactoryd.service $(UNITS:%=build/units/usr/lib/systemd/system/%) || exit 1; \
	    done; \
	else echo 'SKIPPED units: systemd-analyze is missing' >&2; fi
	@if command -v man >/dev/null; then for page in build/man/*.[1-8]; do \
	    said=$$(man --warnings -l $$page 2>&1 >/dev/null); [ -z "$$said" ] || { echo "$$page: $$said" >&2; exit 1; }; done; \
	else echo 'SKIPPED man pages: man is missing' >&2; fi
	build/vmfactoryd check --config packaging/vmfactoryd.json
