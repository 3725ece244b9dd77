//! lastout from outside: real processes, real namespaces, real engines. One binary, one module a subject.

mod control;
mod docker;
mod doctor;
mod exec;
mod golden;
mod hangfs;
mod init;
mod layers;
mod leave;
mod support;
mod trees;
