"""What an AWS call means: service, operation, IAM action, resources, parameters, and AWS-shaped answers.

Pure apart from `models`, which reads botocore's packaged models and a cache directory it is given. Importing this
package does not import botocore: that happens when an index is built or a full shape is needed.
"""
