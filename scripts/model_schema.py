"""Print the JSON Schema of `model.json`: `python scripts/model_schema.py > docs/model.schema.json`."""

import json

from softctm.model.manifest import json_schema

if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))
