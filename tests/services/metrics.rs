//! `lastout metrics`, and that those who are to read it do.

use std::{
    io::Read,
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::Command,
};

use super::*;

#[test]
fn metrics_have_the_totals_of_what_has_ended() {
    let services = Supervised::begin(
        "[service.it]\ncommand = 'exit 3'\nretries = 1\nbackoff = { initial = '10ms' }\n[service.hold]\ncommand = ['sleep', '600']",
    );
    services.until_state("it", "failed");
    // The init's first job was the test's own.
    services.init.must(&["exec", "--", "true"]);
    assert_eq!(services.init.ask(&["exec", "--timeout", "10ms", "--", "sleep", "600"]).status.code(), Some(124));
    let text = services.init.must(&["metrics"]);
    for (kind, outcome, count) in [("job", "succeeded", 2), ("job", "timeout", 1), ("service", "failed", 2)] {
        let line = format!("lastout_ended_total{{kind=\"{kind}\",outcome=\"{outcome}\"}} {count}");
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
        let memory = format!("lastout_ended_max_resident_memory_bytes{{kind=\"{kind}\",outcome=\"{outcome}\"}} ");
        let bytes = text.lines().find_map(|line| line.strip_prefix(&memory)?.parse::<u64>().ok());
        assert!(bytes.is_some_and(|bytes| bytes > 0), "{text}");
    }
    assert!(text.contains("lastout_service_restarts_total{service=\"it\"} 1\n"), "{text}");
    assert_eq!(services.end().0, 3);
}

#[test]
fn both_parsers_of_prometheus_take_the_metrics() {
    if !has("prometheus") {
        return;
    }
    let services = Supervised::begin(
        "[service.it]\ncommand = 'exit 3'\nretries = 1\nbackoff = { initial = '10ms' }
        [service.checked]\ncommand = ['sleep', '600']\nhealth = 'tcp://127.0.0.1:1'",
    );
    services.until_state("it", "failed");
    services.until_state("checked", "ready");
    let textfiles = services.path("textfiles");
    fs::create_dir(&textfiles).unwrap();
    let file = textfiles.join("lastout.prom");
    fs::write(&file, services.init.must(&["metrics"])).unwrap();

    let scraped = node_exporter(&textfiles);
    for line in [
        "node_textfile_scrape_error 0",
        "lastout_up 1",
        "# TYPE lastout_service_state gauge",
        "lastout_service_state{service=\"it\",state=\"failed\"} 1",
        "lastout_service_restarts_total{service=\"it\"} 1",
        "lastout_ended_total{kind=\"service\",outcome=\"failed\"} 2",
    ] {
        assert!(scraped.lines().any(|other| other == line), "{line} in\n{scraped}");
    }

    let mut open_metrics = Command::new(OPEN_METRICS);
    let read = open_metrics.stdin(fs::File::open(&file).unwrap()).output().unwrap();
    assert!(read.status.success(), "{}", both(&read));
    let read = String::from_utf8(read.stdout).unwrap();
    for line in [
        "gauge lastout_up [] 1",
        "gauge lastout_service_state [('service', 'it'), ('state', 'failed')] 1",
        "gauge lastout_service_state [('service', 'it'), ('state', 'ready')] 0",
        "counter lastout_service_restarts_total [('service', 'it')] 1",
        "counter lastout_ended_total [('kind', 'service'), ('outcome', 'failed')] 2",
    ] {
        assert!(read.lines().any(|other| other == line), "{line} in\n{read}");
    }
    assert_eq!(services.end().0, 3);
}

/// What node_exporter's textfile collector makes of a directory.
fn node_exporter(directory: &Path) -> String {
    // Free a moment ago: it does not say which it has taken.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let mut exporter = Command::new("prometheus-node-exporter")
        .args(["--collector.disable-defaults", "--collector.textfile", "--web.disable-exporter-metrics"])
        .arg(format!("--collector.textfile.directory={}", directory.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let scraped = until("node_exporter's answer", || {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        connection.read_to_string(&mut text).ok()?;
        Some(text)
    });
    exporter.kill().unwrap();
    exporter.wait().unwrap();
    scraped
}
