"""One request to a web server or to S3, answered alike: a status, headers in lower case, and the body in pieces.

Why requests and boto3, and not fsspec, which has both behind one face: it shows neither status nor validator nor
Retry-After, and begins a broken download anew. Keys are found by the libraries themselves: boto3 takes the AWS chain
(AWS_PROFILE, AWS_ENDPOINT_URL and the like), requests ~/.netrc or the file named by NETRC, and proxies and
certificates from the environment. None of them is looked at here, or shown.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import Any, Literal, NamedTuple

from stages.common.files import first_line
from stages.core.origins import bucket_and_key, redacted

MAX_REDIRECTS = 10
PIECE_BYTES = 2**20

_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "HF_TOKEN")


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    pieces: Iterator[bytes]  # raises DroppedError when the connection breaks


class DroppedError(Exception):
    """The connection could not be made, broke, or stood still; another attempt may do better."""


class HopelessError(Exception):
    """No attempt can do better."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why, remedy)
        self.why = why
        self.remedy = remedy


class Remotes:
    """Clients for one run; each thread has its own sessions."""

    def __init__(self, *, timeout_s: float, token: str | None = None) -> None:
        self.timeout_s = timeout_s
        self.token = token  # for the host that is asked, not for those it redirects to
        self._local = threading.local()
        self._s3: Any = None
        self._lock = threading.Lock()

    @contextmanager
    def ask(self, method: Literal["GET", "HEAD"], address: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        """Make one request, following redirects.

        Args:
            method: HEAD asks for the headers alone.
            address: of a file, as stages.core.origins joins it.
            headers: of the request, as stages.core.transfer makes them.

        Raises:
            DroppedError: no answer.
            HopelessError: there cannot be one.
        """
        asked = self._ask_s3 if address.startswith("s3://") else self._ask_http
        with asked(method, address, headers) as answer:
            yield answer

    @contextmanager
    def _ask_http(self, method: str, address: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        import requests
        import urllib3

        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.max_redirects = MAX_REDIRECTS
        try:
            response = self._local.session.request(
                method,
                address,
                headers=dict(headers),
                stream=True,
                timeout=self.timeout_s,
                allow_redirects=True,
                auth=self._bearer if self.token else None,
            )
        except requests.TooManyRedirects:
            raise HopelessError(f"redirects more than {MAX_REDIRECTS} times", "correct `origin`") from None
        except requests.exceptions.SSLError as error:
            raise _tls(error) from None
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise DroppedError(_cause(error)) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise HopelessError(f"cannot be asked ({shown(error)})", "correct `origin`") from None
        with closing(response):
            steps = [*(step.url for step in response.history), response.url]
            if address.startswith("https:") and not all(url.startswith("https:") for url in steps):
                raise HopelessError("redirects from https to an address without it", "correct `origin`")
            lowered = {name.lower(): value for name, value in response.headers.items()}
            yield Answer(response.status_code, lowered, _pieces(response.raw))

    def _bearer(self, request: Any) -> Any:  # noqa: ANN401 - requests.PreparedRequest
        """Sign a request; requests takes the header away again where a redirect leaves the host."""
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request

    @contextmanager
    def _ask_s3(self, method: str, address: str, headers: Mapping[str, str]) -> Iterator[Answer]:
        import botocore.exceptions as faults

        bucket, key = bucket_and_key(address)
        conditions = {"Range": headers["Range"], "IfMatch": headers["If-Range"]} if "If-Range" in headers else {}
        body: Any = None
        try:
            client = self._client()
            asked = client.head_object if method == "HEAD" else client.get_object
            response = asked(Bucket=bucket, Key=key, **conditions)
            about, body = response["ResponseMetadata"], response.get("Body")
        except faults.ClientError as error:
            about = error.response.get("ResponseMetadata", {})
        except (faults.HTTPClientError, faults.ConnectionError) as error:
            if isinstance(error, faults.SSLError):
                raise _tls(error) from None
            raise DroppedError(_cause(error)) from None
        except (faults.BotoCoreError, ValueError) as error:
            raise HopelessError(f"cannot be asked ({shown(error)})", "mend the AWS settings") from None
        status = int(about.get("HTTPStatusCode", HTTPStatus.BAD_REQUEST))
        try:
            yield Answer(status, about.get("HTTPHeaders", {}), _s3_pieces(body))
        finally:
            if body is not None:
                body.close()

    def _client(self) -> Any:  # noqa: ANN401 - boto3 makes its classes as it runs
        """The S3 client, which threads may share; unsigned where no keys are found, for public buckets."""
        with self._lock:
            if self._s3 is None:
                import boto3
                from botocore import UNSIGNED
                from botocore.config import Config

                session = boto3.session.Session()
                signed = {} if session.get_credentials() else {"signature_version": UNSIGNED}
                config = Config(
                    connect_timeout=self.timeout_s,
                    read_timeout=self.timeout_s,
                    retries={"total_max_attempts": 1},
                    response_checksum_validation="when_required",
                    max_pool_connections=64,
                    **signed,
                )
                region = session.region_name or "us-east-1"  # boto3 finds the bucket's own from any
                self._s3 = session.client("s3", config=config, region_name=region)
        return self._s3


def shown(error: object) -> str:
    """The first line of a library's error without addresses' secrets and without keys."""
    text = redacted(str(error).strip() or type(error).__name__)
    for name in _SECRETS:
        secret = os.environ.get(name, "")
        text = text.replace(secret, "[key]") if len(secret) >= 8 else text
    return first_line(text)


def _pieces(raw: Any) -> Iterator[bytes]:  # noqa: ANN401 - urllib3.HTTPResponse
    """The body as it comes: `read1` hands on what has arrived, so that a break costs nothing of it."""
    import urllib3

    try:
        while piece := raw.read1(PIECE_BYTES, decode_content=False):
            yield piece
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise DroppedError(_cause(error)) from None


def _s3_pieces(body: Any) -> Iterator[bytes]:  # noqa: ANN401 - botocore's StreamingBody
    import botocore.exceptions as faults
    import urllib3

    try:
        yield from body.iter_chunks(2**18) if body is not None else ()
    except (faults.BotoCoreError, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise DroppedError(_cause(error)) from None


def _cause(error: BaseException) -> str:
    """What broke a connection, in a few words: the libraries' own are long and hold addresses."""
    kinds = " ".join(type(link).__name__ for link in _chain(error))
    if "Timeout" in kinds or "timed out" in str(error):
        return "stands still"
    if "NameResolution" in kinds or "gaierror" in kinds or "Name or service" in str(error):
        return "has a host that is not known here"
    if "NewConnection" in kinds or "ConnectionRefused" in kinds or "EndpointConnection" in kinds:
        return "takes no connection"
    return "breaks the connection"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it is made of, and what it came from."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        link = todo.pop()
        if isinstance(link, BaseException) and id(link) not in seen:
            seen.add(id(link))
            yield link
            todo += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]


def _tls(error: BaseException) -> DroppedError | HopelessError:
    if any("CERTIFICATE_VERIFY_FAILED" in str(link) for link in _chain(error)):
        return HopelessError("shows a certificate that is not trusted here",
                             "correct `origin`, the clock, or REQUESTS_CA_BUNDLE (S3: AWS_CA_BUNDLE)")  # fmt: skip
    return DroppedError("breaks the connection")
