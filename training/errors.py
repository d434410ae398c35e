"""What can go wrong in training and be cured by the user; the command line prints these as one message."""


class TrainingError(Exception):
    """The root of this little tree."""


class ConfigError(TrainingError):
    """A recipe that cannot be used: the message names the key and the cure."""


class DataError(TrainingError):
    """The frames cannot be used: the message says which and what to do."""


class ExportError(TrainingError):
    """The exported graph does not do what the network does."""


class RunError(TrainingError):
    """A run folder that cannot be used, or would be overwritten."""


class TrainedOtherwise(RunError):
    """A run folder keeps a model that was trained with other settings than those that are asked for."""


class WeightsError(TrainingError):
    """A model folder whose weights do not fit the autoencoder that its recipe describes."""


class MissingPackage(TrainingError):
    """An optional package is needed and not installed."""
