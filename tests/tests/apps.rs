//! Real servers and clients under libaccel.so; `../apps` says how each is run.

#[path = "../apps/mod.rs"]
mod apps;

use apps::{PYTHON, check};

#[test]
fn redis() {
    check("redis", &["redis-server", "redis-cli", "redis-benchmark"], apps::redis::test);
}

#[test]
fn memcached() {
    check("memcached", &["memcached", PYTHON], apps::memcached::test);
}

#[test]
fn nginx() {
    check("nginx", &["nginx", "curl", "wrk"], apps::nginx::test);
}

#[test]
fn nginx_reload() {
    check("nginx reload", &["nginx", "curl", "ab"], apps::nginx::reload);
}

#[test]
fn haproxy() {
    check("haproxy", &["haproxy", "nginx", "curl", "wrk"], apps::haproxy::test);
}

#[test]
fn postgresql() {
    if apps::postgres::programs().is_none() {
        return apps::skip("postgresql: initdb is not installed");
    }
    check("postgresql", &["setpriv", "psql"], apps::postgres::test);
}

#[test]
fn curl() {
    check("curl", &["curl", PYTHON], apps::tls::curl);
}

#[test]
fn openssl() {
    check("openssl", &["openssl", "curl"], apps::tls::openssl);
}

#[test]
fn python_asyncio() {
    check("python asyncio", &[PYTHON], apps::python::asyncio);
}

#[test]
fn python_threads() {
    check("python threads", &[PYTHON], apps::python::threads);
}

#[test]
fn python_prefork() {
    check("python prefork", &[PYTHON], apps::python::prefork);
}

#[test]
fn node() {
    check("node", &["node"], apps::node::test);
}

#[test]
fn java() {
    check("java", &["java", "javac"], apps::java::test);
}

#[test]
fn ssh() {
    check("ssh", &["/usr/sbin/sshd", "ssh", "scp", "ssh-keygen"], apps::ssh::test);
}

#[test]
fn iperf3() {
    check("iperf3", &["iperf3"], apps::iperf::test);
}

#[test]
fn socat() {
    check("socat", &["socat", PYTHON], apps::socat::test);
}

#[test]
fn rsync() {
    check("rsync", &["rsync"], apps::rsync::test);
}
