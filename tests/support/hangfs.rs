//! A filesystem that hangs on demand: a small FUSE server in the test's own process, with its tree in memory.
//!
//! What is frozen is held back, request by request, and answered when it thaws; everything else goes on. The
//! test's process must not touch a volume of its own while it is frozen: [`HangFs::put`] and
//! [`HangFs::contents`] go past the kernel.

mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use self::tree::{Change, Tree};
use super::PATIENCE;

/// The kernel keeps neither names nor attributes: every look at one is a request.
const TTL: Duration = Duration::ZERO;
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// The longest freeze.
const LONGEST: Duration = PATIENCE.saturating_mul(2);

/// Kinds of requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Op {
    /// Resolving a name. Every use of a path below the mount point does it.
    Lookup,
    Getattr,
    /// `chmod`, `chown`, `truncate`, `utimens`.
    Setattr,
    /// Opening a file, also a new one.
    Open,
    /// `read`; the page fault of a mapping; the header of a program.
    Read,
    Write,
    /// What `close` sends, also that of a process that ends.
    Flush,
    Fsync,
    /// The last close. Nobody waits for its answer.
    Release,
    Statfs,
    /// Opening a directory. Every lastout in this mount namespace does it to remote volumes when it leaves: only
    /// [`apart`].
    Opendir,
    Readdir,
    /// `mkdir`, `rmdir`, `unlink`, `rename`, `link`, `symlink`.
    Edit,
}

/// A mounted filesystem. When it is dropped its connection is aborted, so that no failing test leaves anything
/// hung. Declare it after the directory that it is in: that is removed after it.
pub struct HangFs {
    pub path: PathBuf,
    /// The number of its connection, below `/sys/fs/fuse/connections`.
    pub connection: u32,
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
}

impl HangFs {
    /// Mounts an empty one, for every user. Needs root, or `user_allow_other` in `/etc/fuse.conf`.
    pub fn mount(path: &Path) -> HangFs {
        HangFs::mount_as(path, false)
    }

    /// The same with the kernel's writeback cache: what is written is dirty pages, until `fsync` or `close`.
    pub fn mount_with_writeback(path: &Path) -> HangFs {
        HangFs::mount_as(path, true)
    }

    fn mount_as(path: &Path, writeback: bool) -> HangFs {
        fs::create_dir_all(path).unwrap();
        let path = path.canonicalize().unwrap();
        let shared = Arc::new(Shared::default());
        let mut config = Config::default();
        config.acl = SessionACL::All;
        config.mount_options =
            vec![MountOption::FSName("hangfs".into()), MountOption::Subtype("hangfs".into()), MountOption::NoAtime];
        let server = Server { shared: shared.clone(), writeback };
        let session = Session::new(server, &path, &config).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let session = session.spawn().expect("a thread for the filesystem");
        // The minor number of the mount's device; asking the mount itself would touch it.
        let mounts = String::from_utf8_lossy(&fs::read("/proc/thread-self/mountinfo").unwrap()).into_owned();
        let device = mounts.lines().rev().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            (fields[4] == in_mountinfo(&path)).then(|| fields[2].strip_prefix("0:")?.parse().ok()).flatten()
        });
        HangFs { path, connection: device.expect("it is mounted"), shared, session: Some(session) }
    }

    /// Requests of these kinds are held from now on, besides those that are already.
    pub fn freeze(&self, ops: &[Op]) {
        let mut state = self.shared.lock();
        state.frozen.extend(ops);
        state.freezes += 1;
        let freeze = state.freezes;
        // A test that waits for what it has frozen is to fail, not to hang.
        let shared = self.shared.clone();
        std::thread::spawn(move || {
            let is_on = |state: &mut State| state.freezes == freeze && !state.frozen.is_empty();
            let (mut state, waited) = shared
                .changed
                .wait_timeout_while(shared.lock(), LONGEST, is_on)
                .unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() {
                state.overdue = true;
                state.thaw();
            }
        });
    }

    /// Nothing is held any more, and what was is answered.
    pub fn thaw(&self) {
        let mut state = self.shared.lock();
        state.thaw();
        self.shared.changed.notify_all();
        let overdue = state.overdue;
        drop(state);
        assert!(!overdue || std::thread::panicking(), "it was frozen for too long: who waited for it?");
    }

    /// Requests of this kind fail from now on, those that are held included.
    pub fn fail(&self, op: Op, errno: i32) {
        self.shared.lock().failing.insert(op, errno);
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.shared.lock().failing.clear();
    }

    /// What is held, oldest first: its kind, and the file's path below the mount point.
    pub fn waiting(&self) -> Vec<(Op, String)> {
        self.shared.lock().held.iter().map(|request| (request.op, request.path.clone())).collect()
    }

    /// Waits until a request of this kind is held for this path below the mount point.
    pub fn until_waiting(&self, op: Op, path: &str) {
        let is_there = |state: &State| state.held.iter().any(|request| request.op == op && request.path == path);
        let state = self.shared.lock();
        let (state, waited) =
            self.shared.changed.wait_timeout_while(state, PATIENCE, |state| !is_there(state)).unwrap();
        let held: Vec<_> = state.held.iter().map(|request| (request.op, request.path.clone())).collect();
        drop(state);
        assert!(!waited.timed_out(), "waited in vain for {op:?} {path}; held are {held:?}");
    }

    /// Makes a file without asking the kernel, with the directories above it.
    pub fn put(&self, path: &str, contents: &[u8], mode: u16) {
        self.shared.lock().tree.put(path, contents, mode);
    }

    /// What has reached the server of a file, without asking the kernel.
    pub fn contents(&self, path: &str) -> Option<Vec<u8>> {
        self.shared.lock().tree.contents(path)
    }

    /// Aborts its connection, as `/sys/fs/fuse/connections/N/abort` does: everything on it fails from now on.
    pub fn abort(&self) {
        // Without a look at the volume: the kernel finds the mount by its place (`fuse_umount_begin`).
        let _ = umount2(&self.path, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    }

    /// Unmounts it: fails if anything uses it.
    pub fn unmount(&self) -> io::Result<()> {
        Ok(umount2(&self.path, MntFlags::UMOUNT_NOFOLLOW)?)
    }
}

impl Drop for HangFs {
    fn drop(&mut self) {
        self.abort();
        // Who may not abort answers everybody instead.
        self.thaw();
        let Some(session) = self.session.take() else { return };
        if nix::unistd::geteuid().is_root() {
            let _ = session.umount_and_join();
        }
    }
}

/// A path as the kernel writes it (proc_pid_mountinfo(5)).
pub fn in_mountinfo(path: &Path) -> String {
    path.to_str().unwrap().replace(' ', "\\040").replace('\n', "\\012")
}

/// Makes `/sys/fs/fuse/connections` what it is on most machines.
pub fn mount_connections() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some(CONNECTIONS)) {
        mount(Some("fusectl"), CONNECTIONS, Some("fusectl"), MsFlags::empty(), None::<&str>).expect("fusectl");
    }
}

/// Runs a test with mounts of its own, which nobody outside `test` sees: for a volume that would hang others.
pub fn apart(test: impl FnOnce() + Send) {
    let name = std::thread::current().name().unwrap_or("?").to_string();
    std::thread::scope(|scope| {
        let own = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
            test();
        };
        let thread = std::thread::Builder::new().name(name).spawn_scoped(scope, own).unwrap();
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

type Answer = Box<dyn FnOnce(Change) + Send>;

struct Held {
    op: Op,
    path: String,
    answer: Answer,
}

#[derive(Default)]
struct State {
    tree: Tree,
    frozen: BTreeSet<Op>,
    failing: BTreeMap<Op, i32>,
    held: Vec<Held>,
    freezes: u64,
    overdue: bool,
}

impl State {
    fn thaw(&mut self) {
        self.frozen.clear();
        for request in std::mem::take(&mut self.held) {
            self.answer(request.op, request.answer);
        }
    }

    fn answer(&mut self, op: Op, answer: Answer) {
        answer(match self.failing.get(&op) {
            Some(errno) => Err(Errno::from_i32(*errno)),
            None => Ok(&mut self.tree),
        });
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something is held.
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that failed while it held it is to thaw all the same.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kernel's side. One thread reads requests and never waits: what is held is a closure in a list.
struct Server {
    shared: Arc<Shared>,
    writeback: bool,
}

impl Server {
    fn serve(&self, op: Op, inode: INodeNo, name: Option<&OsStr>, answer: impl FnOnce(Change) + Send + 'static) {
        let mut state = self.shared.lock();
        let answer = Box::new(answer);
        if state.frozen.contains(&op) {
            let path = state.tree.path(inode, name);
            state.held.push(Held { op, path, answer });
            self.shared.changed.notify_all();
        } else {
            state.answer(op, answer);
        }
    }

    fn done(&self, op: Op, inode: INodeNo, reply: ReplyEmpty) {
        self.serve(op, inode, None, move |tree| match tree {
            Ok(_) => reply.ok(),
            Err(errno) => reply.error(errno),
        });
    }

    fn edit(
        &self,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEmpty,
        edit: impl FnOnce(&mut Tree) -> Result<(), Errno> + Send + 'static,
    ) {
        self.serve(Op::Edit, parent, Some(name), move |tree| match tree.and_then(edit) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        });
    }

    /// A request that is answered with an entry of a directory.
    fn entry(
        &self,
        op: Op,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
        find: impl FnOnce(&mut Tree) -> Result<INodeNo, Errno> + Send + 'static,
    ) {
        self.serve(op, parent, Some(name), move |tree| {
            let found = tree.and_then(|tree| find(tree).and_then(|inode| tree.attr(inode)));
            match found {
                Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
                Err(errno) => reply.error(errno),
            }
        });
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // One held name must not hold its directory's others.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        if self.writeback {
            config.add_capabilities(InitFlags::FUSE_WRITEBACK_CACHE).expect("a writeback cache");
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let wanted = name.to_owned();
        self.entry(Op::Lookup, parent, name, reply, move |tree| tree.find(parent, &wanted));
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(Op::Getattr, inode, None, move |tree| match tree.and_then(|tree| tree.attr(inode)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        });
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = move |tree: &mut Tree| {
            let node = tree.node_mut(inode)?;
            node.mode = mode.map_or(node.mode, |mode| mode as u16 & 0o7777);
            node.uid = uid.unwrap_or(node.uid);
            node.gid = gid.unwrap_or(node.gid);
            node.mtime = match mtime {
                Some(TimeOrNow::SpecificTime(time)) => time,
                Some(TimeOrNow::Now) => SystemTime::now(),
                None => node.mtime,
            };
            if let Some(size) = size {
                tree.truncate(inode, size)?;
            }
            tree.attr(inode)
        };
        self.serve(Op::Setattr, inode, None, move |tree| match tree.and_then(set) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(errno),
        });
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        self.serve(Op::Lookup, inode, None, move |tree| match tree.and_then(|tree| tree.target(inode)) {
            Ok(target) => reply.data(target.as_encoded_bytes()),
            Err(errno) => reply.error(errno),
        });
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (wanted, mode) = (name.to_owned(), (mode & !umask) as u16);
        let owner = (request.uid(), request.gid());
        self.entry(Op::Edit, parent, name, reply, move |tree| {
            tree.make(parent, &wanted, tree::Kind::directory(), mode, owner)
        });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (wanted, kind) = (name.to_owned(), tree::Kind::Link(target.as_os_str().to_owned()));
        let owner = (request.uid(), request.gid());
        self.entry(Op::Edit, parent, name, reply, move |tree| tree.make(parent, &wanted, kind, 0o777, owner));
    }

    fn link(&self, _: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let wanted = name.to_owned();
        self.entry(Op::Edit, parent, name, reply, move |tree| tree.link(inode, parent, &wanted));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let wanted = name.to_owned();
        self.edit(parent, name, reply, move |tree| tree.unlink(parent, &wanted));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let wanted = name.to_owned();
        self.edit(parent, name, reply, move |tree| tree.unlink(parent, &wanted));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (wanted, new_name) = (name.to_owned(), new_name.to_owned());
        self.edit(parent, name, reply, move |tree| match flags {
            RenameFlags::RENAME_NOREPLACE if tree.find(to, &new_name).is_ok() => Err(Errno::EEXIST),
            flags if (flags - RenameFlags::RENAME_NOREPLACE).is_empty() => tree.rename(parent, &wanted, to, &new_name),
            _ => Err(Errno::EINVAL),
        });
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Without FOPEN_KEEP_CACHE every open drops what the kernel had of the file, so that it asks again.
        self.serve(Op::Open, inode, None, move |tree| match tree {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let (wanted, mode) = (name.to_owned(), (mode & !umask) as u16);
        let owner = (request.uid(), request.gid());
        let make = move |tree: &mut Tree| {
            let inode = tree.make(parent, &wanted, tree::Kind::File(Vec::new()), mode, owner)?;
            tree.attr(inode)
        };
        self.serve(Op::Open, parent, Some(name), move |tree| match tree.and_then(make) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        });
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.serve(Op::Read, inode, None, move |tree| {
            match tree.and_then(|tree| tree.read(inode, offset as usize, size as usize)) {
                Ok(bytes) => reply.data(bytes),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let bytes = bytes.to_vec();
        self.serve(Op::Write, inode, None, move |tree| {
            match tree.and_then(|tree| tree.write(inode, offset as usize, &bytes)) {
                Ok(()) => reply.written(bytes.len() as u32),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn flush(&self, _: &Request, inode: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.done(Op::Flush, inode, reply);
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.done(Op::Fsync, inode, reply);
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.done(Op::Fsync, inode, reply);
    }

    fn release(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.done(Op::Release, inode, reply);
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.serve(Op::Opendir, inode, None, move |tree| match tree {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        });
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.serve(Op::Readdir, inode, None, move |tree| match tree.and_then(|tree| tree.entries(inode)) {
            Ok(entries) => {
                for (next, (inode, kind, name)) in (1..).zip(entries).skip(offset as usize) {
                    if reply.add(inode, next, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(errno) => reply.error(errno),
        });
    }

    fn statfs(&self, _: &Request, inode: INodeNo, reply: ReplyStatfs) {
        self.serve(Op::Statfs, inode, None, move |tree| match tree {
            Ok(_) => reply.statfs(1 << 18, 1 << 17, 1 << 17, 1 << 16, 1 << 15, 4096, 255, 4096),
            Err(errno) => reply.error(errno),
        });
    }
}
