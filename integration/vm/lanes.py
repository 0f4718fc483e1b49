"""The kinds of host that toolcell is tested on: what each is, and what is expected of it.

Neighbours: `scripts/vm` runs them, `machine` boots them, `tests/it/host.rs` reads what is expected. Never: skips a lane
that cannot be made; that is a failure.
"""

import dataclasses

import programs

# All but the protocol, which is the same everywhere, and whose tests are about seconds that an emulated machine does not keep.
ALL_TESTS = ("unit", "it audit:: cell:: demo:: doctor:: golden:: help:: host:: readme:: selftest:: session::ahead::")
# Where no cell can be made, that is what is looked at.
# Each program a process of its own: what makes cells itself may have moved to a scope of its own.
REFUSAL = ("it host:: doctor:: selftest::", "it cell::outside::")
# What is known of what Landlock refuses.
DENIALS = ("unit sys:: watch::", "it cell::denials:: session::denials:: doctor:: selftest:: cell::outside::",)
DENIALS_ALONE = ("it cell::denials::without_namespaces cell::denials::what_nobody doctor:: selftest:: cell::outside::",)
# Ways out of cells and into them, where Landlock holds more of them than on this machine: UDP, and sockets with a path. Two tests
# need clients that guests lack, one is about a second.
DOORS = ("it network:: session::places:: --skip network::clients::curl_ --skip network::clients::git_ --skip network::started::a_tool_that_is_tried",)
# All that is about cells, and not about a protocol.
CELLS = ("it cell:: host:: doctor:: selftest::",)
# Where the machine is a lane's own, its clock is too.
CLOCK = ("it --ignored cell::clock::",)


@dataclasses.dataclass(frozen=True)
class Lane:
    """One kind of host. `expect` is what TOOLCELL_EXPECT_HOST says; `tests` are programs, each with names to choose by. The
    ABI of Landlock in TOOLCELL_EXPECT_LANDLOCK is the kernel's; TOOLCELL_EXPECT_CGROUP is where systemd has a manager for the user,
    and where no other test has moved the tests into a scope.

    Users: `root`; `scope`, in a scope of systemd with delegated controllers; `session`, as after a login; `plain`,
    without a service manager or a cgroup of one's own.
    """

    kernel: str
    user: str
    expect: str
    quick: bool = False
    sysctls: tuple = ()
    apparmor: str = ""
    arguments: str = ""
    docker: bool = False
    # Done by root before the tests, where the user's tests begin: by the host's rules for him.
    before: str = ""
    # systemd without a session of the user's.
    booted: bool = False
    tests: tuple = ALL_TESTS

    @property
    def systemd(self):
        """Is systemd the guest's first program?"""
        return self.booted or self.user in ("session", "scope")


def refusing(kernel, user, missing, launch=None, floor="landlock", **others):
    """A host without a cell of the usual kind: the layer, the call that fails alone, its errno, the launch's if another."""
    return Lane(kernel, user, f"{floor}:{missing}:{launch or missing.split(':')[-1]}", tests=REFUSAL, **others)


# As Documentation/userspace-api/landlock.rst has them by version.
LANDLOCK = {"6.1": 2, "6.12": 6, "6.18": 7, "7": 11}

AUDITED = "audit=1 audit_backlog_limit=1024"

MEND = "/project/toolcell doctor --fix --apply --yes"

LANES = {
    "root": Lane("6.12", "root", "full", quick=True, tests=(*CELLS, *CLOCK)),
    "root-6.12": Lane("6.12", "root", "full"),
    # A host without one of the controllers, also for root.
    "root-no-pids": Lane("6.12", "root", "no-cgroup", arguments="cgroup_disable=pids", tests=REFUSAL),
    "scope": Lane("6.12", "scope", "full", tests=CELLS),
    "scope-6.12": Lane("6.12", "scope", "full"),
    "session": Lane("6.12", "session", "full", quick=True, tests=REFUSAL),
    "session-6.12": Lane("6.12", "session", "full"),
    "plain": Lane("6.12", "plain", "no-cgroup", tests=CELLS),
    "no-user-namespaces": refusing("6.12", "plain", "user-namespace:clone3:ENOSPC", quick=True,
                                   sysctls=("user.max_user_namespaces=0",)),
    "no-unprivileged-user-namespaces": refusing("6.12", "plain", "user-namespace:clone3:EPERM",
                                                sysctls=("kernel.unprivileged_userns_clone=0",)),
    "ubuntu-24.04": refusing("6.12", "plain", "user-namespace:write:EACCES", "EPERM", quick=True, apparmor="apparmor-24.04"),
    "ubuntu-23.10": refusing("6.12", "plain", "user-namespace:clone3:EACCES", quick=True, apparmor="apparmor-23.10"),
    # What `doctor --fix` does lifts each of these.
    "no-user-namespaces-mended": Lane("6.12", "plain", "no-cgroup", tests=REFUSAL, before=MEND,
                                      sysctls=("user.max_user_namespaces=0",)),
    "ubuntu-23.10-mended": Lane("6.12", "plain", "no-cgroup", tests=REFUSAL, before=MEND, apparmor="apparmor-23.10"),
    "linger-mended": Lane("6.12", "plain", "full", tests=REFUSAL, booted=True,
                          before=f"env SUDO_UID=1000 SUDO_GID=1000 {MEND}"),
    "docker": refusing("6.12", "plain", "user-namespace:clone3:ENOSYS", quick=True, docker=True),
    "docker-root": refusing("6.12", "root", "mount-namespace:clone3:ENOSYS", docker=True),
    "docker-apparmor": refusing("6.12", "plain", "user-namespace:write:EACCES", apparmor="apparmor-docker"),
    "no-landlock": refusing("6.12", "root", "landlock:landlock_create_ruleset:EOPNOTSUPP", floor="none", quick=True,
                            arguments="lsm=lockdown,yama,apparmor"),
    "root-5.10": refusing("5.10", "root", "landlock:landlock_create_ruleset:ENOSYS", floor="none"),
    "scope-5.10": refusing("5.10", "scope", "landlock:landlock_create_ruleset:ENOSYS", floor="none"),
    "root-6.1": Lane("6.1", "root", "full"),
    "scope-6.1": Lane("6.1", "scope", "full"),
    "root-6.18": Lane("6.18", "root", "full"),
    "scope-6.18": Lane("6.18", "scope", "full"),
    # What Landlock refuses is logged there.
    "audited": Lane("6.18", "root", "full", quick=True, arguments=AUDITED, tests=DENIALS),
    "audited-landlock": Lane("6.18", "root", "landlock:user-namespace:unshare:ENOSPC", arguments=AUDITED,
                             sysctls=("user.max_user_namespaces=0",), tests=DENIALS_ALONE),
    "audited-7": Lane("7", "root", "full", arguments=AUDITED, tests=DENIALS),
    "doors-7": Lane("7", "root", "full", quick=True, tests=("it network::attacks::",)),
    "root-7": Lane("7", "root", "full", tests=(*ALL_TESTS, *DOORS)),
    "scope-7": Lane("7", "scope", "full", tests=(*ALL_TESTS, *DOORS)),
}


def command(lane, hurried):
    """The script that runs a lane's tests, as its user: without the selftest, which takes minutes, when in a hurry."""
    variables = {**programs.environment("/project"), "TMPDIR": "/var/tmp", "TOOLCELL_TEST_SKIPS": "/var/tmp/skips",
                 "TOOLCELL_TEST_PATIENCE": 10, "TOOLCELL_EXPECT_HOST": lane.expect, "PROPTEST_CASES": 32}
    if lane.kernel in LANDLOCK and not lane.expect.startswith("none"):
        variables["TOOLCELL_EXPECT_LANDLOCK"] = LANDLOCK[lane.kernel]
    if lane.arguments == AUDITED:
        variables["TOOLCELL_EXPECT_AUDIT"] = "on"
    if lane.user == "session" and lane.tests == REFUSAL:
        variables["TOOLCELL_EXPECT_CGROUP"] = "a scope asked of systemd"
    lines = ["#!/bin/sh", *(f"export {name}='{value}'" for name, value in variables.items()),
             "export HOME=${HOME:-/root}", "umask 022", "cd /project/project", "worst=0"]
    for test in lane.tests:
        program, *names = (word for word in test.split() if not (hurried and word == "selftest::"))
        run = f"/project/{program} {' '.join(names) or '--skip tidy::'}"
        if lane.docker:
            # The test becomes what stands in the variable, under the filter; its own summary is not of interest.
            run = f"TOOLCELL_TEST_IN_DOCKER='{run}' /project/it --quiet --nocapture --exact host::as_in_a_container_of_docker"
        lines.append(f"{run} || worst=1")
    lines += ["sed 's/^/vm-skipped: /' /var/tmp/skips 2> /dev/null | sort -u", "exit $worst"]
    return "\n".join(lines) + "\n"
