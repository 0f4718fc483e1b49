//! The steps of a plan: plain data that one loop in `launch` runs in order and `explain` prints.
//!
//! Neighbours: `plan::build` makes them, `launch::init` and `launch::launcher` run them. Never: runs anything.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::doors::Doors;
use crate::outcome::Layer;
pub use crate::policy::Observe;
pub use crate::policy::listen::At;

/// Where toolcell keeps its own objects in the private root.
pub const OWN: &str = "/.toolcell";
/// An empty file that nobody may open: what a hidden file looks like.
pub const EMPTY_FILE: &str = "/.toolcell/file";
/// An empty directory that nobody may open: what a hidden directory looks like.
pub const EMPTY_DIRECTORY: &str = "/.toolcell/directory";
/// An empty directory that nobody may open, but names may be looked up in: what is left of one in which nothing is to be found.
pub const EMPTIED: &str = "/.toolcell/emptied";
/// Where what is written to overlays is while they are made.
pub const CHANGES: &str = "/.toolcell/changes";
/// Where the directory of the host is while an overlay is made over it.
pub const BENEATH: &str = "/.toolcell/beneath";
/// A file that everybody could read if Landlock were off.
pub const CANARY: &str = "/.toolcell/canary";
/// Where what a server keeps from call to call is.
pub const PERSIST: &str = "/persist";
/// Where the private writable directory is. Without a private root this path stands for the directory that
/// `MakePrivateDirectory` made, in Landlock's rules, as the working directory and as a value of the environment.
pub const SCRATCH: &str = "/tmp";

/// A namespace, by the kernel's names (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are the kernel's and documented in namespaces(7)")]
pub enum Namespace {
    User,
    Mount,
    Pid,
    Net,
    Ipc,
    Uts,
    Cgroup,
    Time,
}

/// What a mounted tree allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Access {
    /// Files can be changed and made.
    pub write: bool,
    /// Files can be executed and mapped executable.
    pub execute: bool,
    /// Names and what `stat` tells are there, and no file can be opened. Only Landlock can hold it, which adds rights
    /// only: where another rule lets a file be read, it is.
    pub names: bool,
}

/// Is a source or target a directory or something else?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file or a device node.
    File,
}

/// One file to write when the cgroup is made: controller directory, file, value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSetting {
    /// The file's name, e.g. `memory.max` or `memory.limit_in_bytes`.
    pub file: String,
    /// What is written to it.
    pub value: String,
    /// A file that the kernel does not have is skipped (swap accounting is optional), others are an error.
    pub optional: bool,
}

/// One directory made for the cell: the only one on cgroup v2, one a hierarchy on v1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupDirectory {
    /// The directory under which the cell's own is made.
    pub parent: PathBuf,
    /// The controllers that live here, by the kernel's names.
    pub controllers: Vec<String>,
    /// Settings in order.
    pub settings: Vec<CgroupSetting>,
}

/// A resource limit, by the kernel's names (getrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
#[expect(missing_docs, reason = "the names are the kernel's and documented in getrlimit(2)")]
pub enum Resource {
    Core,
    Nofile,
    Fsize,
    Nproc,
    Data,
    Stack,
    Memlock,
    Msgqueue,
    Sigpending,
}

/// One Landlock rule on a path of the cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LandlockRule {
    /// The path inside the cell.
    pub path: PathBuf,
    /// What is allowed beneath it.
    pub access: Access,
    /// A directory or a file: directory rights on a file are refused by the kernel.
    pub kind: Kind,
}

/// What Landlock lets a cell do with a network of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// TCP ports to which a connection may be made (ABI 4), and the resolver's over UDP (ABI 10).
    pub connect: Vec<u16>,
    /// TCP ports at which a program may listen (ABI 4).
    pub listen: Vec<u16>,
}

/// Which attempts somebody is told of that the filter lets run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attempts {
    /// None.
    Untold,
    /// Programs that are started.
    Programs,
    /// These, and addresses that are to be reached or listened at.
    All,
}

/// One step of a launch. The order in a plan is the order in which they run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Launcher: make the cell's cgroup directories and write their limits.
    CreateCgroup {
        /// One for v2, one a hierarchy for v1.
        directories: Vec<CgroupDirectory>,
        /// cgroup v2: clone3 places the child itself; v1: the child writes itself into each.
        unified: bool,
    },
    /// Launcher: a name that does not exist and must not come to exist is made for the life of the cell, so that it can
    /// be covered or bound; directories on the way that do not exist either are made and removed with it.
    ReserveName {
        /// Path on the host.
        path: PathBuf,
        /// A file with this in it; else an empty directory.
        content: Option<String>,
    },
    /// Launcher: a socket of the host's by which a port of the cell is reached.
    ListenOutside {
        /// The port in the cell.
        port: u16,
        /// Where on the host.
        at: At,
    },
    /// Launcher: a directory of the cell's own on the host, with the scratch directory and a canary in it.
    MakePrivateDirectory {
        /// Where.
        parent: PathBuf,
        /// User and group of the payload, if they are not the launcher's.
        owner: Option<(u32, u32)>,
    },
    /// Launcher: clone3 with these namespaces; the steps after it run in the child, pid 1 of the cell.
    Clone {
        /// Namespaces made at once.
        namespaces: Vec<Namespace>,
    },
    /// Child: enter the cgroup (v1), check that it did, then make a cgroup namespace with it as root.
    JoinCgroup {
        /// Make the namespace; without it the payload can see where it is, not change it.
        namespace: bool,
    },
    /// Child: map one user and one group id of a user namespace that `Clone` made.
    MapIds {
        /// User and group id inside.
        inside: u32,
        /// User id outside.
        outside_uid: u32,
        /// Group id outside.
        outside_gid: u32,
    },
    /// Child: no mount made from here on is seen on the host.
    IsolateMounts,
    /// Child: an empty tmpfs that becomes the root.
    MountRoot,
    /// Child: a directory in the private root.
    MakeDirectory {
        /// Absolute path in the cell.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// Child: a file in the private root, made by toolcell.
    MakeFile {
        /// Absolute path in the cell.
        path: PathBuf,
        /// Content.
        content: String,
        /// Permission bits.
        mode: u32,
    },
    /// Child: another content for a file that every cell has.
    RewriteFile {
        /// Absolute path in the cell.
        path: PathBuf,
        /// Content.
        content: String,
    },
    /// Child: a symbolic link in the private root.
    MakeSymlink {
        /// Absolute path in the cell.
        path: PathBuf,
        /// What it points to.
        target: PathBuf,
    },
    /// Child: a socket that nobody listens at, where programs look for one to which there is a door.
    MakeSocket {
        /// Absolute path in the cell.
        path: PathBuf,
    },
    /// Child: a file or tree of the host.
    Bind {
        /// Path on the host, free of symbolic links when the plan was made; one that appeared since is refused.
        source: PathBuf,
        /// Path in the cell.
        target: PathBuf,
        /// Tree or file.
        kind: Kind,
        /// What it allows.
        access: Access,
        /// Device nodes keep working (only for the nodes of `/dev`).
        devices: bool,
        /// Owner on disk that appears as the payload's own user and group (idmapped mount), if it is not that already.
        owner: Option<(u32, u32)>,
    },
    /// Child: cover a path inside a bind, so that nothing of it is seen.
    Hide {
        /// Path in the cell.
        path: PathBuf,
        /// Of a directory: a name in it is not found (`ENOENT`), instead of refused (`EACCES`).
        emptied: bool,
    },
    /// Child: a private writable tmpfs.
    MountScratch {
        /// Path in the cell.
        path: PathBuf,
        /// Size in bytes.
        size: u64,
        /// Number of inodes.
        inodes: u64,
        /// Files in it can be executed.
        execute: bool,
    },
    /// Child: a `/proc` of the cell's own pid namespace, process directories only.
    MountProc,
    /// Child: make the private root the root, drop the old one, make the new one read-only.
    PivotRoot,
    /// Child: bring up the cell's own loopback interface.
    LoopbackUp,
    /// Child: the addresses at which something can be reached, and sockets that listen there, handed over to who connects outside.
    OpenDoors {
        /// Which.
        doors: Box<Doors>,
    },
    /// Child: host name.
    SetHostname {
        /// The name.
        name: String,
    },
    /// Child: one resource limit, soft and hard.
    SetRlimit {
        /// Which.
        resource: Resource,
        /// Value.
        value: u64,
    },
    /// Child: a session and session keyring of its own, so no terminal and no keys of the host.
    NewSession,
    /// Child: only the three pipes and init's own channel stay open.
    CloseDescriptors,
    /// Child started by root: give up every group, then become this user.
    SetIds {
        /// User id on the host.
        uid: u32,
        /// Group id on the host.
        gid: u32,
    },
    /// Child started by root: enter a user namespace that owns none of the others.
    UnshareUser {
        /// User and group id inside.
        inside: u32,
    },
    /// Child: no user namespace can be made below this one.
    ForbidUserNamespaces,
    /// Child: every capability set empty, securebits locked.
    DropCapabilities {
        /// The bounding set and securebits too, which only a process with capabilities can change.
        bounding: bool,
    },
    /// Child: no program can raise privileges again.
    NoNewPrivileges,
    /// Child: what a pid namespace would do for the cell's processes: those that are left come to init, which the payload
    /// cannot signal, and init ends all of them when the launcher goes.
    HoldProcesses,
    /// Child: Landlock.
    Landlock {
        /// The ABI that the host reported and whose every right is handled.
        abi: u32,
        /// What stays allowed.
        rules: Vec<LandlockRule>,
        /// What is refused to the payload is logged by the kernel, because toolcell reads it (ABI 7).
        logged: bool,
        /// What stays allowed of the network; in the host's, none of the rights over it are handled.
        ports: Option<Ports>,
    },
    /// Child: the system call filter, as instructions of `struct sock_filter` (code, jt, jf, k).
    Seccomp {
        /// The program.
        program: Vec<(u16, u8, u8, u32)>,
        /// What is told to the supervisor: refusals but for `ENOSYS`, which it answers with the program's error, and on
        /// demand each file that is opened.
        observe: Option<Observe>,
        /// What is told as well, though it may run.
        attempts: Attempts,
    },
    /// Child: look at each layer from inside; refuse to go on when one is not on.
    Verify {
        /// The layers to check.
        layers: Vec<Layer>,
    },
    /// Child: run the payload; init stays behind as pid 1 and reaps.
    Exec {
        /// Absolute path of the program in the cell.
        program: PathBuf,
        /// Arguments, the first being the name.
        argv: Vec<String>,
        /// The whole environment.
        env: Vec<(String, String)>,
        /// Working directory in the cell.
        cwd: PathBuf,
    },
    /// Child: memory that takes what is written to overlays, beside the private root's own objects until they are all made.
    MountChanges {
        /// Size in bytes.
        size: u64,
        /// Number of inodes.
        inodes: u64,
    },
    /// Child: a directory of the host that the cell cannot change, with what the cell writes laid over it.
    MountOverlay {
        /// Path on the host, free of symbolic links when the plan was made; one that appeared since is refused.
        source: PathBuf,
        /// Path in the cell.
        target: PathBuf,
        /// What it allows.
        access: Access,
        /// Owner on disk that appears as the payload's own user and group, if it is not that already.
        owner: Option<(u32, u32)>,
        /// Names below the source that the host would run, or that are granted with less.
        kept: Vec<PathBuf>,
        /// Names below the source that are denied.
        denied: Vec<PathBuf>,
        /// Names below the source that grants of their own leave to the tool.
        left: Vec<PathBuf>,
    },
    /// Child: the mount namespace and the private root, still writable, are handed out, so that the launcher can mount in these empty directories
    /// what a call's arguments grant when the cell waits already.
    OpenPlaces {
        /// Paths in the cell.
        paths: Vec<PathBuf>,
    },
    /// Child: that memory leaves the private root; the overlays keep it.
    DetachChanges {
        /// It is handed out, so that what is in it can be reviewed when the cell has ended.
        review: bool,
    },
}

impl Step {
    /// The step's name in explanations, errors and docs/launch.md.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CreateCgroup { .. } => "create-cgroup",
            Self::ReserveName { .. } => "reserve-name",
            Self::ListenOutside { .. } => "listen-outside",
            Self::MakePrivateDirectory { .. } => "make-private-directory",
            Self::Clone { .. } => "clone",
            Self::JoinCgroup { .. } => "join-cgroup",
            Self::MapIds { .. } => "map-ids",
            Self::IsolateMounts => "isolate-mounts",
            Self::MountRoot => "mount-root",
            Self::MakeDirectory { .. } => "make-directory",
            Self::MakeFile { .. } => "make-file",
            Self::RewriteFile { .. } => "rewrite-file",
            Self::MakeSymlink { .. } => "make-symlink",
            Self::MakeSocket { .. } => "make-socket",
            Self::Bind { .. } => "bind",
            Self::MountChanges { .. } => "mount-changes",
            Self::MountOverlay { .. } => "mount-overlay",
            Self::DetachChanges { .. } => "detach-changes",
            Self::OpenPlaces { .. } => "open-places",
            Self::Hide { .. } => "hide",
            Self::MountScratch { .. } => "mount-scratch",
            Self::MountProc => "mount-proc",
            Self::PivotRoot => "pivot-root",
            Self::LoopbackUp => "loopback-up",
            Self::OpenDoors { .. } => "open-doors",
            Self::SetHostname { .. } => "set-hostname",
            Self::SetRlimit { .. } => "set-rlimit",
            Self::NewSession => "new-session",
            Self::CloseDescriptors => "close-descriptors",
            Self::SetIds { .. } => "set-ids",
            Self::UnshareUser { .. } => "unshare-user",
            Self::ForbidUserNamespaces => "forbid-user-namespaces",
            Self::DropCapabilities { .. } => "drop-capabilities",
            Self::NoNewPrivileges => "no-new-privileges",
            Self::HoldProcesses => "hold-processes",
            Self::Landlock { .. } => "landlock",
            Self::Seccomp { .. } => "seccomp",
            Self::Verify { .. } => "verify",
            Self::Exec { .. } => "exec",
        }
    }
}
