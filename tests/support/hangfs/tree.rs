//! Directories and files in memory. Inodes are never forgotten: whoever has an unlinked file open goes on using it.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    time::SystemTime,
};

use fuser::{Errno, FileAttr, FileType, INodeNo};

/// The tree to work on, or the error that a request is to fail with.
pub(super) type Change<'a> = Result<&'a mut Tree, Errno>;

pub(super) enum Kind {
    File(Vec<u8>),
    Directory(BTreeMap<OsString, INodeNo>),
    Link(OsString),
}

impl Kind {
    pub(super) fn directory() -> Kind {
        Kind::Directory(BTreeMap::new())
    }

    fn file_type(&self) -> FileType {
        match self {
            Kind::File(_) => FileType::RegularFile,
            Kind::Directory(_) => FileType::Directory,
            Kind::Link(_) => FileType::Symlink,
        }
    }
}

pub(super) struct Node {
    kind: Kind,
    /// Where it was made or renamed to, for whoever asks what is held.
    place: (INodeNo, OsString),
    links: u32,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: SystemTime,
}

/// Inode n + 1 is at place n.
pub(super) struct Tree(Vec<Node>);

impl Default for Tree {
    fn default() -> Tree {
        let root = Node::new(Kind::directory(), (INodeNo::ROOT, OsString::new()), 0o777, (0, 0));
        Tree(vec![root])
    }
}

impl Node {
    fn new(kind: Kind, place: (INodeNo, OsString), mode: u16, (uid, gid): (u32, u32)) -> Node {
        Node { kind, place, links: 1, mode: mode & 0o7777, uid, gid, mtime: SystemTime::now() }
    }
}

impl Tree {
    fn node(&self, inode: INodeNo) -> Result<&Node, Errno> {
        self.0.get(inode.0 as usize - 1).ok_or(Errno::ENOENT)
    }

    pub(super) fn node_mut(&mut self, inode: INodeNo) -> Result<&mut Node, Errno> {
        self.0.get_mut(inode.0 as usize - 1).ok_or(Errno::ENOENT)
    }

    fn names(&self, inode: INodeNo) -> Result<&BTreeMap<OsString, INodeNo>, Errno> {
        match &self.node(inode)?.kind {
            Kind::Directory(names) => Ok(names),
            Kind::File(_) | Kind::Link(_) => Err(Errno::ENOTDIR),
        }
    }

    fn names_mut(&mut self, inode: INodeNo) -> Result<&mut BTreeMap<OsString, INodeNo>, Errno> {
        match &mut self.node_mut(inode)?.kind {
            Kind::Directory(names) => Ok(names),
            Kind::File(_) | Kind::Link(_) => Err(Errno::ENOTDIR),
        }
    }

    fn bytes_mut(&mut self, inode: INodeNo) -> Result<&mut Vec<u8>, Errno> {
        let node = self.node_mut(inode)?;
        node.mtime = SystemTime::now();
        match &mut node.kind {
            Kind::File(bytes) => Ok(bytes),
            Kind::Directory(_) => Err(Errno::EISDIR),
            Kind::Link(_) => Err(Errno::EINVAL),
        }
    }

    pub(super) fn attr(&self, inode: INodeNo) -> Result<FileAttr, Errno> {
        let node = self.node(inode)?;
        let size = match &node.kind {
            Kind::File(bytes) => bytes.len() as u64,
            Kind::Link(target) => target.len() as u64,
            Kind::Directory(_) => 4096,
        };
        Ok(FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: node.mtime,
            mtime: node.mtime,
            ctime: node.mtime,
            crtime: node.mtime,
            kind: node.kind.file_type(),
            perm: node.mode,
            nlink: node.links,
            uid: node.uid,
            gid: node.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// The path below the mount point, of an inode or of a name in it.
    pub(super) fn path(&self, inode: INodeNo, name: Option<&OsStr>) -> String {
        let mut parts: Vec<String> = name.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        let mut at = inode;
        while at != INodeNo::ROOT
            && let Ok(node) = self.node(at)
        {
            parts.push(node.place.1.to_string_lossy().into_owned());
            at = node.place.0;
        }
        parts.reverse();
        parts.join("/")
    }

    pub(super) fn find(&self, parent: INodeNo, name: &OsStr) -> Result<INodeNo, Errno> {
        self.names(parent)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(super) fn make(
        &mut self,
        parent: INodeNo,
        name: &OsStr,
        kind: Kind,
        mode: u16,
        owner: (u32, u32),
    ) -> Result<INodeNo, Errno> {
        if self.find(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        let inode = INodeNo(self.0.len() as u64 + 1);
        self.names_mut(parent)?.insert(name.to_owned(), inode);
        self.0.push(Node::new(kind, (parent, name.to_owned()), mode, owner));
        Ok(inode)
    }

    pub(super) fn link(&mut self, inode: INodeNo, parent: INodeNo, name: &OsStr) -> Result<INodeNo, Errno> {
        if self.find(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        self.names_mut(parent)?.insert(name.to_owned(), inode);
        self.node_mut(inode)?.links += 1;
        Ok(inode)
    }

    /// A file, or a directory that is empty.
    pub(super) fn unlink(&mut self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let inode = self.find(parent, name)?;
        if self.names(inode).is_ok_and(|names| !names.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.names_mut(parent)?.remove(name);
        self.node_mut(inode)?.links -= 1;
        Ok(())
    }

    pub(super) fn rename(&mut self, parent: INodeNo, name: &OsStr, to: INodeNo, new_name: &OsStr) -> Result<(), Errno> {
        let inode = self.find(parent, name)?;
        match self.find(to, new_name) {
            // Two names of one file: nothing is to be done (`rename(2)`).
            Ok(other) if other == inode => return Ok(()),
            Ok(_) => self.unlink(to, new_name)?,
            Err(_) => {}
        }
        self.names_mut(parent)?.remove(name);
        self.names_mut(to)?.insert(new_name.to_owned(), inode);
        self.node_mut(inode)?.place = (to, new_name.to_owned());
        Ok(())
    }

    pub(super) fn target(&self, inode: INodeNo) -> Result<&OsStr, Errno> {
        match &self.node(inode)?.kind {
            Kind::Link(target) => Ok(target),
            Kind::File(_) | Kind::Directory(_) => Err(Errno::EINVAL),
        }
    }

    pub(super) fn entries(&self, inode: INodeNo) -> Result<Vec<(INodeNo, FileType, OsString)>, Errno> {
        let mut entries = vec![
            (inode, FileType::Directory, ".".into()),
            (self.node(inode)?.place.0, FileType::Directory, "..".into()),
        ];
        for (name, inode) in self.names(inode)? {
            entries.push((*inode, self.node(*inode)?.kind.file_type(), name.clone()));
        }
        Ok(entries)
    }

    pub(super) fn read(&self, inode: INodeNo, offset: usize, size: usize) -> Result<&[u8], Errno> {
        let Kind::File(bytes) = &self.node(inode)?.kind else { return Err(Errno::EISDIR) };
        let begin = offset.min(bytes.len());
        Ok(&bytes[begin..begin.saturating_add(size).min(bytes.len())])
    }

    pub(super) fn write(&mut self, inode: INodeNo, offset: usize, from: &[u8]) -> Result<(), Errno> {
        let bytes = self.bytes_mut(inode)?;
        let end = offset + from.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset..end].copy_from_slice(from);
        Ok(())
    }

    pub(super) fn truncate(&mut self, inode: INodeNo, size: u64) -> Result<(), Errno> {
        self.bytes_mut(inode)?.resize(size as usize, 0);
        Ok(())
    }

    pub(super) fn put(&mut self, path: &str, contents: &[u8], mode: u16) {
        let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut parent = INodeNo::ROOT;
        for directory in directories.split('/').filter(|part| !part.is_empty()) {
            let directory = OsStr::new(directory);
            parent = self
                .find(parent, directory)
                .or_else(|_| self.make(parent, directory, Kind::directory(), 0o777, (0, 0)))
                .expect("a directory");
        }
        let _ = self.unlink(parent, OsStr::new(name));
        self.make(parent, OsStr::new(name), Kind::File(contents.to_vec()), mode, (0, 0)).expect("a file");
    }

    pub(super) fn contents(&self, path: &str) -> Option<Vec<u8>> {
        let mut at = INodeNo::ROOT;
        for part in path.split('/') {
            at = self.find(at, OsStr::new(part)).ok()?;
        }
        self.read(at, 0, usize::MAX).ok().map(<[u8]>::to_vec)
    }
}
