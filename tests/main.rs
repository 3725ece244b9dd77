//! lastout from outside: real processes, real namespaces, real engines. One binary, one module a subject.

mod acknowledged;
mod causes;
mod check;
mod control;
mod docker;
mod doctor;
mod exec;
mod faults;
mod frozen;
mod golden;
mod hangfs;
mod init;
mod keeper;
mod layers;
mod leave;
mod limits;
mod logger;
mod personas;
mod pid_namespace;
mod services;
mod signals;
mod stuck;
mod support;
mod trees;
mod unmount;
mod volumes;
