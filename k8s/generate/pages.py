"""What the three dashboards show: the service, its workers, and the health of its models."""

from typing import Final

from panels import JOB, RATE, Dashboard, Panel

OK: Final = f'{JOB},code="OK"'


def _quantiles(metric: str, labels: str) -> dict[str, str]:
    rates = f"sum by (le) (rate({metric}_bucket{{{labels}}}{RATE}))"
    return {f"p{round(100 * share)}": f"histogram_quantile({share}, {rates})" for share in (0.5, 0.95, 0.99)}


SERVICE: Final = Dashboard(
    uid="ferserve-service",
    title="ferserve: service",
    rows={
        "Objectives": [
            Panel(
                title="Requests",
                queries={"a second": f"sum(rate(ferserve_requests_total{{{JOB}}}{RATE}))"},
                says="All that is answered, refusals and errors among it.",
                unit="reqps",
                single=True,
            ),
            Panel(
                title="Errors of ours, 1 h",
                queries={"{{job}}": f"job:ferserve_errors:ratio1h{{{JOB}}}"},
                says="The objective is 0.5 % over a month.",
                unit="percentunit",
                single=True,
            ),
            Panel(
                title="Slower than a second, 1 h",
                queries={"{{job}}": f"job:ferserve_slow:ratio1h{{{JOB}}}"},
                says="Of answered photos; the objective is 5 % over a month.",
                unit="percentunit",
                single=True,
            ),
            Panel(
                title="Gateways",
                queries={"{{version}}": f"count by (version) (ferserve_build_info{{{JOB}}})"},
                says="By version.",
                single=True,
            ),
        ],
        "Requests": [
            Panel(
                title="Requests by code",
                queries={"{{code}}": f"sum by (code) (rate(ferserve_requests_total{{{JOB}}}{RATE}))"},
                says="INTERNAL, WORKER_FAILED, NOT_READY and DEADLINE count against the objective.",
                unit="reqps",
            ),
            Panel(
                title="Requests by method",
                queries={"{{method}}": f"sum by (method) (rate(ferserve_requests_total{{{JOB}}}{RATE}))"},
                says="gRPC methods and REST routes.",
                unit="reqps",
            ),
            Panel(
                title="Time to the answer",
                queries=_quantiles("ferserve_request_duration_seconds", OK),
                says="Of what was answered.",
                unit="s",
            ),
        ],
        "Room": [
            Panel(
                title="Refused",
                queries={
                    "{{reason}}, {{priority}}": "sum by (reason, priority) "
                    f"(rate(ferserve_refused_total{{{JOB}}}{RATE}))"
                },
                says="By what ran out. Bulk is refused before interactive.",
                unit="reqps",
            ),
            Panel(
                title="Pictures in flight",
                queries={
                    "in flight": f"sum(ferserve_in_flight_images{{{JOB}}})",
                    "limit": f"sum(ferserve_in_flight_images_limit{{{JOB}}})",
                    "wait for a turn": f"sum(ferserve_waiting_images{{{JOB}}})",
                },
                says="At the limit, requests are refused.",
            ),
            Panel(
                title="Left before computation",
                queries={
                    "{{stage}}, {{cause}}": "sum by (stage, cause) "
                    f"(rate(ferserve_dropped_before_compute_total{{{JOB}}}{RATE}))"
                },
                says="Pictures and faces whose caller's time ran out, or who left.",
                unit="ops",
            ),
        ],
        "Process": [
            Panel(
                title="Memory",
                queries={"{{instance}}": f"ferserve_process_resident_memory_bytes{{{JOB}}}"},
                says="By gateway, with all processes of its own; what they share counts once.",
                unit="bytes",
            ),
            Panel(
                title="CPU",
                queries={"{{instance}}": f"rate(ferserve_process_cpu_seconds_total{{{JOB}}}{RATE})"},
                says="Cores in use, by gateway, with all processes of its own.",
            ),
            Panel(
                title="Processes that died",
                queries={"{{instance}}": f"increase(ferserve_preparers_lost_total{{{JOB}}}{RATE})"},
                says="Of those that decode and search pictures; each is replaced, and its pictures are tried again.",
            ),
            Panel(
                title="Certificates",
                queries={"{{certificate}}": f"job_certificate:ferserve_certificate_remaining:seconds{{{JOB}}}"},
                says="Time until the first of them ends, with TLS; renewal is due with a third left.",
                unit="s",
            ),
            Panel(
                title="Forecasts",
                queries=_quantiles("ferserve_forecast_ratio", JOB),
                says="Time that requests took over the time foreseen at admission, where they had to wait; 1 is right.",
            ),
        ],
    },
)

WORKERS: Final = Dashboard(
    uid="ferserve-workers",
    title="ferserve: workers",
    rows={
        "Faces": [
            Panel(
                title="Faces scored",
                queries={"{{model}}": f"sum by (model) (rate(ferserve_faces_total{{{JOB}}}{RATE}))"},
                says="A second, by model.",
                unit="ops",
            ),
            Panel(
                title="Faces waiting",
                queries={"{{model}}, {{instance}}": f"ferserve_queued_faces{{{JOB}}}"},
                says="What the autoscaler follows.",
            ),
            Panel(
                title="Faces without scores",
                queries={"{{model}}": f"sum by (model) (rate(ferserve_worker_failed_faces_total{{{JOB}}}{RATE}))"},
                says="Because of a worker.",
                unit="ops",
            ),
        ],
        "Workers": [
            Panel(
                title="Workers in use",
                queries={"{{model}}, {{worker}}, {{instance}}": f"ferserve_worker_up{{{JOB}}}"},
                says="1 while a gateway gives the worker batches.",
            ),
            Panel(
                title="Failures",
                queries={
                    "{{worker}}, {{cause}}": "sum by (worker, cause) "
                    f"(rate(ferserve_worker_failures_total{{{JOB}}}{RATE}))"
                },
                says="Of batches and probes.",
                unit="ops",
            ),
            Panel(
                title="Error of the latency model",
                queries=_quantiles("ferserve_latency_model_error_ratio", JOB),
                says="How far off the expected time of a batch was, as a part of it.",
                unit="percentunit",
            ),
        ],
        "Batches": [
            Panel(
                title="Faces in a batch",
                queries={
                    "{{model}}": f"sum by (model) (rate(ferserve_batch_faces_sum{{{JOB}}}{RATE}))"
                    f" / sum by (model) (rate(ferserve_batch_faces_count{{{JOB}}}{RATE}))"
                },
                says="Mean. Near 1 while workers are idle; else near the size from which on more faces save little "
                "(face_slack), at most max_batch_faces.",
            ),
            Panel(
                title="Wait for a batch",
                queries=_quantiles("ferserve_stage_duration_seconds", f'{JOB},stage="queue"'),
                says="Of one face.",
                unit="s",
            ),
            Panel(
                title="Run of a batch",
                queries=_quantiles("ferserve_stage_duration_seconds", f'{JOB},stage="infer"'),
                says="At the worker, the way there and back included.",
                unit="s",
            ),
        ],
        "Where the time goes": [
            Panel(
                title="Stages, p95",
                queries={"{{stage}}": f"job_stage:ferserve_stage_duration_seconds:p95_5m{{{JOB}}}"},
                says="turn, decode, detect, preprocess and encode of a picture, queue of a face, infer of a batch.",
                unit="s",
            ),
            Panel(
                title="Share of each stage",
                queries={"{{stage}}": f"sum by (stage) (rate(ferserve_stage_duration_seconds_sum{{{JOB}}}{RATE}))"},
                says="Seconds of each stage a second.",
                unit="s",
            ),
            Panel(
                title="Archives",
                queries={
                    "{{model}} {{version}} {{precision}}": "count by (model, version, precision) "
                    f"(ferserve_archive_info{{{JOB}}})"
                },
                says="How many gateways serve which archive in which precision.",
            ),
        ],
    },
)

MODELS: Final = Dashboard(
    uid="ferserve-models",
    title="ferserve: model health",
    rows={
        "Drift": [
            Panel(
                title="Stability index",
                queries={"{{model}}": f"job_model:ferserve_top_expression:psi1h{{{JOB}}}"},
                says="Highest expressions of the last hour against the reference. Above 0.25 they have moved.",
            ),
            Panel(
                title="Highest expression, last hour",
                queries={"{{model}} {{expression}}": f"job_model_expression:ferserve_top_expression:share1h{{{JOB}}}"},
                says="Share of the faces.",
                unit="percentunit",
            ),
            Panel(
                title="Reference",
                queries={"{{model}} {{expression}}": f"job_model_expression:ferserve_reference:share{{{JOB}}}"},
                says="What the archive was measured on; where it does not say, the last seven days here.",
                unit="percentunit",
            ),
        ],
        "Confidence": [
            Panel(
                title="Uncertain faces, last hour",
                queries={"{{model}}": f"job_model:ferserve_uncertain:ratio1h{{{JOB}}}"},
                says="Whose highest score lies below the archive's threshold.",
                unit="percentunit",
            ),
            Panel(
                title="Pictures without a face, last hour",
                queries={"{{job}}": f"job:ferserve_without_face:ratio1h{{{JOB}}}"},
                says="An answer and no error, but rarely what callers want.",
                unit="percentunit",
            ),
            Panel(
                title="Detections without a crop",
                queries={"a second": f"sum(rate(ferserve_skipped_faces_total{{{JOB}}}{RATE}))"},
                says="Left out of the answer.",
                unit="ops",
            ),
        ],
        "Pictures": [
            Panel(
                title="Faces in a picture",
                queries={
                    "mean": f"sum(rate(ferserve_image_faces_sum{{{JOB}}}{RATE}))"
                    f" / sum(rate(ferserve_image_faces_count{{{JOB}}}{RATE}))"
                }
                | _quantiles("ferserve_image_faces", JOB),
                says="A crowd's faces share the batches of all.",
            ),
            Panel(
                title="Faces by expression",
                queries={
                    "{{model}} {{expression}}": "sum by (model, expression) "
                    f"(rate(ferserve_top_expression_faces_total{{{JOB}}}{RATE}))"
                },
                says="A second.",
                unit="ops",
            ),
        ],
    },
)

PAGES: Final = (SERVICE, WORKERS, MODELS)
