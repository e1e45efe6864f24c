use runmesh::{control::Client, daemon::*, forge::Spec, runner::Isolation, wire::ticket::Invitation};
use std::process::ExitCode;
fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|a| a == "reap") {
        return runmesh::runner::reaper::main(args);
    }
    let a: Vec<String> = std::env::args().skip(1).collect();
    tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUNMESH_LOG").unwrap_or("info,libp2p=warn".into()))
        .with_target(false)
        .init();
    let rt = tokio::runtime::Runtime::new().unwrap();
    rt.block_on(async {
        let dir = std::path::PathBuf::from(&a[1]);
        match a[0].as_str() {
            "run" => run(
                Settings {
                    data_dir: dir,
                    listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
                    bootstrap: vec![],
                    sources: a[2..].iter().map(|s| Spec::Git(s.into())).collect(),
                    max_runners: 2,
                    isolation: Isolation::Bwrap,
                    labels: runmesh::runner::default_labels(),
                    act: Some("/tmp/actbin/bin/act".into()),
                    drain: false,
                    discovery_interval: std::time::Duration::from_secs(2),
                },
                |s| println!("{s:#?}"),
            )
            .await
            .unwrap(),
            "invite" => {
                let i = Client::connect(&dir).await.unwrap().invite().await.unwrap();
                let key = runmesh::store::DataDir::open(&dir).unwrap().mesh_key().unwrap().unwrap();
                let ticket =
                    runmesh::kernel::entry::Ticket::sign(&key.signing_key(), std::process::id().into(), u64::MAX / 2);
                println!("{}", Invitation { mesh: i.mesh_id.parse().unwrap(), ticket, addresses: i.addresses });
            }
            "join" => {
                Home::join(&dir, &a[2].parse().unwrap()).unwrap();
            }
            "status" => {
                println!("{:#?}", Client::connect(&dir).await.unwrap().status().await.unwrap());
            }
            "tasks" => {
                for t in Client::connect(&dir).await.unwrap().tasks("", &[]).await.unwrap() {
                    println!(
                        "{} {} {} {:?} {:?} {:?} {}",
                        &t.id[..8],
                        t.path,
                        t.state,
                        t.attempt,
                        t.holder.map(|h| h[46..].to_string()),
                        t.conclusion,
                        t.note
                    );
                }
            }
            _ => panic!(),
        }
    });
    ExitCode::SUCCESS
}
