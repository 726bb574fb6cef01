"""What real AWS answers, as small expectations, one module for each service.

Most are taken from the responses that LocalStack's parity tests recorded from AWS accounts (repository localstack/localstack,
`tests/aws/services/**/*.snapshot.json`); `source` names the recording as `file::test::step`. An expectation that no recording
shows names the page of AWS's documentation instead.
"""
