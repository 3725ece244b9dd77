//! lastout from outside: real processes, real namespaces, real engines. One binary, one module a subject.

mod docker;
mod exec;
mod init;
mod support;
mod trees;
