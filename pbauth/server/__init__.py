"""The parts that ``twistd pbauth`` puts together."""
