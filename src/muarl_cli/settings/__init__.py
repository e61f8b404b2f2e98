"""Settings: the typed shape in code, the defaults in `stages/*.yaml`, and one resolver that knows where each value came
from. Nothing is imported here, so that a name can be looked up without pydantic on the way.
"""
